"""The same three lines in Hugging Face's Trainer; stopped in mid-epoch, it goes on as it was."""

import shutil
import warnings

import pytest
import torch

from regrow.engine.schedules import Linear
from regrow.samples import Cyclic, InfoBatch, RootLoss, Samples

pytest.importorskip("transformers", reason="needs the extra regrow[transformers]")
pytest.importorskip("accelerate", reason="needs the extra regrow[transformers]")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import Trainer, TrainingArguments

    from regrow.adapters.transformers_samples import SampleTraining
    from regrow.reading import UnreadableError
    from tests.adapters.test_transformers import Data, bert

pytestmark = pytest.mark.filterwarnings("ignore")  # of the library's own making

N = 24


class Chosen(Trainer):
    """What a user writes."""

    samples: Samples
    log_of: list

    def _get_train_sampler(self, *_):
        return self.samples.sampler(ranks=1)

    def compute_loss(self, model, inputs, return_outputs=False, **_):
        ids, labels = inputs.pop("ids", None), inputs.pop("labels")
        outputs = model(**inputs)
        losses = torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="none")
        if model.training:
            self.samples.update(ids, losses)
            self.log_of.append(ids.tolist())
        return (losses.mean(), outputs) if return_outputs else losses.mean()


def make(**options):
    return Samples(N, **{"criterion": RootLoss(), "keep": 0.5, "epochs": 4} | options)


def make_trainer(folder, samples, **options):
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=100,
        remove_unused_columns=False,
        **{"num_train_epochs": 4, "save_strategy": "no"} | options,
    )
    trainer = Chosen(
        bert(),
        arguments,
        train_dataset=samples.with_ids(Data()),
        eval_dataset=Data(),
        callbacks=[SampleTraining(samples)],
    )
    trainer.samples, trainer.log_of = samples, []
    return trainer


def test_the_trainer_trains_on_what_is_chosen(tmp_path):
    samples = make()
    trainer = make_trainer(tmp_path, samples)
    trainer.train()
    assert len(trainer.log_of) == samples.steps(4) == trainer.state.max_steps == 12
    epochs = [sorted(i for ids in trainer.log_of[at : at + 3] for i in ids) for at in (0, 3, 6, 9)]
    assert sorted(epochs[0] + epochs[1]) == list(range(N))
    assert epochs[3] == samples.kept.nonzero().flatten().tolist()
    assert int(samples.scores["seen"].sum()) == 48
    assert set(trainer.lr_scheduler.get_last_lr()) == {0.0}
    assert trainer.evaluate()["eval_samples_per_second"] > 0
    assert int(samples.scores["seen"].sum()) == 48


def test_gradients_may_be_accumulated(tmp_path):
    samples = make()
    trainer = make_trainer(tmp_path, samples, gradient_accumulation_steps=2)
    trainer.train()
    assert trainer.state.global_step == samples.steps(4, accumulate=2) == 8
    assert int(samples.scores["seen"].sum()) == 48


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A trainer that was not stopped, and the folder of one that left a checkpoint each step."""
    folder = tmp_path_factory.mktemp("whole")
    saving = make_trainer(folder, make(), save_strategy="steps", save_steps=1)
    trainer = make_trainer(tmp_path_factory.mktemp("unsaved"), make())
    for one in (trainer, saving):
        one.train()
    assert trainer.log_of == saving.log_of
    return trainer, folder


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("stop", [2, 3, 5, 7])
def test_a_checkpoint_goes_on_as_it_was(tmp_path, whole, stop, skips):
    whole, folder = whole
    path = shutil.copytree(folder / f"checkpoint-{stop}", tmp_path / f"checkpoint-{stop}")
    rest = make_trainer(tmp_path, make(), ignore_data_skip=not skips)
    rest.train(resume_from_checkpoint=str(path))
    if skips or stop % 3 == 0:
        assert whole.log_of[stop:] == rest.log_of
        assert str(rest.samples.state_dict()["scores"]) == str(whole.samples.state_dict()["scores"])
    else:  # the trainer then counts the epoch's steps from its start; what is left comes first
        left = -stop % 3
        assert rest.log_of[:left] == whole.log_of[stop : stop + left]


@pytest.mark.parametrize(
    "options",
    [
        {"warmup": 1},
        {"anneal": 0.25},
        {"keep": Linear(1.0, 0.5)},
        {"share_of": "length", "lengths": range(N)},
        {"keep": None, "criterion": InfoBatch()},
    ],
)
def test_epochs_that_the_trainer_would_count_wrongly_are_refused(tmp_path, options):
    with pytest.raises(ValueError, match="counts on epochs of equal lengths"):
        make_trainer(tmp_path, make(**options)).train()


def test_both_have_the_same_number_of_epochs(tmp_path):
    with pytest.raises(ValueError, match="samples of epochs=5, a trainer of 4: give both the same"):
        make_trainer(tmp_path, make(epochs=5)).train()
    make_trainer(tmp_path, make(epochs=None)).train()


def test_a_damaged_file_is_named(tmp_path):
    samples = make()
    how = {"save_strategy": "steps", "save_steps": 2}
    make_trainer(tmp_path, samples, **how).train()
    file = tmp_path / "checkpoint-2" / "samples.pt"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UnreadableError, match=r"samples\.pt is damaged"):
        make_trainer(tmp_path, make(), **how).train(resume_from_checkpoint=str(file.parent))


def test_accelerate_is_told_where_it_was():
    from accelerate import Accelerator
    from torch.utils.data import DataLoader

    samples = Samples(N, Cyclic(), keep=0.5)
    loader = DataLoader(samples.with_ids(Data()), batch_size=4, sampler=samples.sampler(ranks=1))
    loader = Accelerator(cpu=True).prepare(loader)
    seen = []
    for _ in range(2):
        for batch in loader:
            samples.update(batch["ids"], batch["labels"].float())
            seen += batch["ids"].tolist()
    assert sorted(seen) == list(range(N))

    resumed = Samples(N, Cyclic(), keep=0.5)
    resumed.load_state_dict(samples.state_dict())
    loader = DataLoader(resumed.with_ids(Data()), batch_size=4, sampler=resumed.sampler(ranks=1))
    loader = Accelerator(cpu=True).prepare(loader)
    with pytest.raises(ValueError, match=r"with Accelerate: loader.set_epoch"):
        next(iter(loader))
    loader.set_epoch(2)
    assert len(list(loader)) == 3
