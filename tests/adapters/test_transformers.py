"""Hugging Face's own Trainer with the callback: sparse, and resumed as if it had not stopped."""

import warnings

import pytest
import torch

import regrow

pytest.importorskip("transformers", reason="needs the extra regrow[transformers]")
pytest.importorskip("accelerate", reason="needs the extra regrow[transformers]")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    from regrow.adapters.transformers import SparseTraining

pytestmark = pytest.mark.filterwarnings("ignore")  # of the library's own making

METHOD = regrow.RigL(density=0.3, update_every=2, stop_at=10)


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(i)
        tokens = torch.randint(30, (6,), generator=generator)
        return {"input_ids": tokens, "labels": tokens[0] % 2}


def train(folder, steps, resume=None):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = BertForSequenceClassification(config)
    callback = SparseTraining(METHOD, exclude="classifier.*")
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=12,
        per_device_train_batch_size=4,
        save_steps=steps,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=100,
    )
    Trainer(model=model, args=arguments, train_dataset=Data(), callbacks=[callback]).train(
        resume_from_checkpoint=resume
    )
    return model, callback.sparse


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *train(folder, 5)


def test_the_trainers_own_steps_drive_the_topology(whole):
    _, model, sparse = whole
    assert sparse.steps == sparse.total_steps == 12
    assert [update.step for update in sparse.history][:2] == [2, 4]
    assert "classifier.weight" not in sparse.masks
    assert not any("embeddings" in name for name in sparse.masks)
    for name, mask in sparse.masks.items():
        assert not model.get_parameter(name)[~mask].any()


def test_a_checkpoint_resumes_the_run_bit_for_bit(whole):
    folder, model, sparse = whole
    again, resumed = train(folder, 5, resume=str(folder / "checkpoint-5"))
    assert resumed.history == sparse.history
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
