"""From a trained model to a sparse one in one call: rules that look at activations, and scores."""
