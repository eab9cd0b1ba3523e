"""Sparse training in an Accelerate loop: on one CPU, or on GPUs with `accelerate launch`.

Needs: pip install accelerate scikit-learn
"""

import argparse

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import regrow


def main(epochs: int, folder: str | None) -> float:
    torch.manual_seed(0)
    accelerator = Accelerator(gradient_accumulation_steps=2)
    digits = load_digits()
    images = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    loader = DataLoader(TensorDataset(images, labels), batch_size=32, shuffle=True)
    model = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    # After prepare(); and let save_state() keep the topology.
    sparse = regrow.sparsify(
        model, optimizer, regrow.RigL(density=0.1), total_steps=epochs * -(-len(loader) // 2)
    )
    accelerator.register_for_checkpointing(sparse)

    for _ in range(epochs):
        for inputs, targets in loader:
            with accelerator.accumulate(model):
                loss = cross_entropy(model(inputs), targets)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
    if folder:
        accelerator.save_state(folder)
    accelerator.print(sparse.summary())
    accuracy = (model(images.to(accelerator.device)).argmax(1).cpu() == labels).float().mean()
    accelerator.print(f"training accuracy {accuracy:.3f}")
    return float(accuracy)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--save", metavar="FOLDER")
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.save)
