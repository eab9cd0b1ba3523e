"""Hugging Face's own Trainer with the callback: sparse, and resumed as if it had not stopped."""

import shutil
import warnings

import pytest
import torch

import regrow

pytest.importorskip("transformers", reason="needs the extra regrow[transformers]")
pytest.importorskip("accelerate", reason="needs the extra regrow[transformers]")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        Trainer,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )

    from regrow.adapters.transformers import SparseTraining
    from regrow.engine.saved import unpack

pytestmark = pytest.mark.filterwarnings("ignore")  # of the library's own making

METHOD = regrow.RigL(density=0.3, update_every=2, stop_at=10)


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(i)
        tokens = torch.randint(30, (6,), generator=generator)
        return {"input_ids": tokens, "labels": tokens[0] % 2}


def bert():
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
    return BertForSequenceClassification(config)


def make_trainer(folder, callback, steps=5, options=None, **model):
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=12,
        per_device_train_batch_size=4,
        save_steps=steps,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=100,
        **(options or {}),
    )
    model = model or {"model": bert()}
    return Trainer(
        args=arguments, train_dataset=Data(), eval_dataset=Data(), callbacks=[callback], **model
    )


def train(folder, steps, resume=None):
    callback = SparseTraining(METHOD, exclude="classifier.*")
    trainer = make_trainer(folder, callback, steps)
    trainer.train(resume_from_checkpoint=resume)
    return trainer.model, callback.sparse


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


def test_a_checkpoint_that_was_moved_is_missed_by_name(whole, tmp_path):
    """The callback is not told where the trainer resumes from: it was a bare FileNotFoundError."""
    folder, model, sparse = whole
    shutil.copytree(folder / "checkpoint-5", tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"checkpoint-5/regrow\.pt is missing.*copy"):
        train(tmp_path / "new", 5, resume=str(tmp_path / "moved"))
    (tmp_path / "new" / "checkpoint-5").mkdir(parents=True)
    shutil.copy(tmp_path / "moved" / "regrow.pt", tmp_path / "new" / "checkpoint-5")
    again, resumed = train(tmp_path / "new", 5, resume=str(tmp_path / "moved"))
    assert resumed.history == sparse.history
    assert all(value.equal(again.state_dict()[name]) for name, value in model.state_dict().items())


class TestTrainAgain:
    """It was refused: "model is sparse already"."""

    def test_begins_anew_with_the_topology_at_hand(self, tmp_path):
        callback = SparseTraining(METHOD)
        trainer = make_trainer(tmp_path, callback, 100)
        trainer.train()
        masks = callback.sparse.masks
        assert not callback.sparse._handles
        callback.method = regrow.RigL(density=0.3, update_every=100)
        trainer.train()
        assert callback.sparse.steps == 12
        assert callback.sparse.history == []
        assert all(mask.equal(masks[name]) for name, mask in callback.sparse.masks.items())

    def test_another_model_is_not_given_the_topology_of_the_first(self, tmp_path):
        """With model_init every training has its own, as a search for hyperparameters needs."""
        callback = SparseTraining(METHOD)
        trainer = make_trainer(tmp_path, callback, 100, model_init=bert)
        runs = []
        for _ in range(2):
            trainer.train()
            runs.append((callback.sparse.history, callback.sparse.masks))
        assert runs[0][0] == runs[1][0]
        assert all(mask.equal(runs[1][1][name]) for name, mask in runs[0][1].items())


def strays(model, masks):
    """Count the weights outside the masks that are not zero."""
    return sum(int(model.get_parameter(name)[~m].count_nonzero()) for name, m in masks.items())


def check_saved(folder, masks):
    """In every checkpoint: the model's weights lie within the topology beside them."""
    found = sorted(folder.glob("checkpoint-*"))
    for checkpoint in found:
        model = BertForSequenceClassification.from_pretrained(checkpoint)
        layers = torch.load(checkpoint / "regrow.pt", weights_only=True)["layers"]
        then = {name: unpack(layers[name]["mask"], mask.shape) for name, mask in masks.items()}
        assert strays(model, then) == 0, checkpoint
    return found


BEST = {
    "load_best_model_at_end": True,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "metric_for_best_model": "loss",
    "learning_rate": 1e-2,
}


def test_the_best_model_keeps_its_weights_in_a_further_training(tmp_path):
    """The last masks zeroed weights of the best model, and were reported."""
    callback = SparseTraining(METHOD)
    trainer = make_trainer(tmp_path, callback, 4, BEST | {"greater_is_better": True})
    trainer.train()
    best = trainer.state.best_model_checkpoint
    assert best is not None
    assert not best.endswith("-12"), "the test needs a best model that is not the last"
    saved = torch.load(f"{best}/regrow.pt", weights_only=True)
    assert callback.sparse.state_dict()["layers"].keys() == saved["layers"].keys()
    masks = callback.sparse.masks
    for name, mask in masks.items():
        assert unpack(saved["layers"][name]["mask"], mask.shape).equal(mask)
    assert strays(trainer.model, masks) == 0
    assert check_saved(tmp_path, masks)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    begun = []
    begin = callback.begin
    callback.begin = lambda model, *rest: (
        begin(model, *rest)
        or begun.append({name: value.clone() for name, value in model.state_dict().items()})
    )
    trainer.train()
    assert all(value.equal(begun[0][name]) for name, value in before.items())


def test_another_models_weights_are_refused(tmp_path):
    callback = SparseTraining(METHOD)
    trainer = make_trainer(tmp_path, callback, 100)
    trainer.train()
    trainer.model.load_state_dict(
        {
            k: torch.randn_like(v) if v.is_floating_point() else v
            for k, v in trainer.model.state_dict().items()
        }
    )
    with pytest.raises(ValueError, match=r"outside its mask.*callback\.sparse = None"):
        trainer.train()
    callback.sparse = None
    trainer.train()


@pytest.mark.parametrize(
    "optimizer", ["adamw_torch", "adafactor", "sgd", "rmsprop", "adagrad", "schedule_free_adamw"]
)
def test_what_the_trainer_saves_is_as_sparse_as_it_says(optimizer, tmp_path):
    if optimizer.startswith("schedule_free"):
        pytest.importorskip("schedulefree", reason="needs the package schedulefree")
    callback = SparseTraining(METHOD)
    options = {"optim": optimizer, "eval_strategy": "steps", "eval_steps": 4}
    if optimizer.startswith("schedule_free"):
        options["lr_scheduler_type"] = "constant"
    trainer = make_trainer(tmp_path, callback, 4, options)
    trainer.train()
    masks = callback.sparse.masks
    assert callback.sparse.history
    assert strays(trainer.model, masks) == 0
    assert len(check_saved(tmp_path, masks)) == 3


def test_every_rank_gathers_the_topology_and_one_writes_it(tmp_path):
    """Where weights are sharded a rank that gathers alone waits for ever."""
    callback, asked = SparseTraining(METHOD), []
    model = torch.nn.Linear(8, 4)
    callback.begin(model, torch.optim.SGD(model.parameters(), lr=0.1), 0, 12)
    gather = callback.sparse.state_dict
    callback.sparse.state_dict = lambda: asked.append(True) or gather()
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to=[], use_cpu=True)
    (tmp_path / "checkpoint-3").mkdir()
    for writes in (False, True):
        state = TrainerState(global_step=3, is_world_process_zero=writes)
        callback.on_save(arguments, state, TrainerControl())
        assert (tmp_path / "checkpoint-3" / "regrow.pt").exists() == writes
    assert len(asked) == 2
