"""What a run will take of a device's memory, and what is refused before it starts."""

from dataclasses import replace

import pytest
from test_config import config as composed_config
from tiny import tiny_config

from cai import run
from cai.config import ModelSource, OptimizerKind, Quantization, Strategy
from cai.contracts.table import stages
from cai.errors import UserError
from cai.lm.adapters import n_reached
from cai.lm.footprint import GIB, Footprint, Shape, footprint, remedy, shape_of
from cai.lm.load import load_model
from cai.pipeline.plan import State, Step
from cai.pipeline.stage import Holds

SHAPE = Shape(
    weights=1000 * GIB, linear=800 * GIB, sharded=900 * GIB, reached=700 * GIB, adapter=GIB,
    layers=10, hidden=64, widths=10 * 256, heads=4, cached=512, vocabulary=100,
)  # fmt: skip
"""A GiB of numbers is the unit, so that results are bytes per number."""


def base(*overrides):
    return composed_config("model=tiny", "hardware=cpu", "model.dtype=bf16", *overrides)


def test_a_model_is_counted_without_its_weights(hardware):
    config = tiny_config()
    model = load_model(config, hardware)
    shape = shape_of(config)
    assert shape.weights == sum(p.numel() for p in model.network.parameters())
    assert shape.reached == n_reached(model.network, model._shared.targets) > shape.weights / 2
    model.add_adapter("a", 1)
    assert shape.adapter == sum(p.numel() for p in model.adapter_parameters("a"))
    # by hand: two layers of 64 with 4 heads, 2 of them with keys, and an inner width of 128
    assert shape.widths == 2 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    assert shape.cached == 2 * 2 * 2 * 16
    assert (shape.layers, shape.hidden, shape.heads, shape.vocabulary) == (2, 64, 4, 259)


def test_the_default_model_is_counted_without_loading_it():
    shape = shape_of(composed_config("model=smollm2").model)
    assert shape.weights == 134_515_008
    assert shape.adapter == 4_884_480


def test_weights_by_precision_packing_and_sharding():
    idle = Holds()
    assert footprint(SHAPE, idle, base(), 1).weights == pytest.approx(2000)
    assert footprint(SHAPE, idle, base("model.dtype=fp32"), 1).weights == pytest.approx(4000)
    packed = base("model.quantization=nf4")
    assert footprint(SHAPE, idle, packed, 1).weights == pytest.approx(2 * 200 + 0.52 * 800)
    shared = base("hardware=shard", "hardware.accelerator=cpu")
    assert footprint(SHAPE, idle, shared, 2).weights == pytest.approx(2 * (100 + 450))


def test_what_is_trained_has_gradients_and_moments():
    one = Holds(adapters=2, trained=1)
    assert footprint(SHAPE, one, base(), 1).trained == pytest.approx(2 * 4 + 4 + 8)
    assert footprint(SHAPE, one, base(), 2).trained == pytest.approx(2 * 4 + 4 + 4 + 8)
    small = one._replace(optimizer=OptimizerKind.adamw_8bit)
    assert footprint(SHAPE, small, base(), 1).trained == pytest.approx(2 * 4 + 4 + 2.1)
    undo = one._replace(undo=True)
    assert footprint(SHAPE, undo, base(), 1).trained == pytest.approx(2 * 4 + 2 * (4 + 8))
    whole = footprint(SHAPE, Holds(whole=1, copies=1), base(), 1)
    assert whole.trained == pytest.approx(1000 * (4 + 8))
    assert whole.weights == pytest.approx(1000 * (2 + 4 + 4)), "base, policy and reference"


def test_a_step_grows_with_its_micro_batch_and_shrinks_when_computed_twice():
    trained = Holds(1, 1, length=100, read=0.5)
    plain = footprint(SHAPE, trained, base("hardware.micro_tokens=1000"), 1).step
    assert footprint(SHAPE, trained, base("hardware.micro_tokens=2000"), 1).step > 1.5 * plain
    twice = ["hardware.micro_tokens=1000", "hardware.activation_checkpointing=true"]
    assert footprint(SHAPE, trained, base(*twice), 1).step < 0.6 * plain
    # a processor's allocator has holes where activations were dropped; a GPU's has none
    kept, dropped = (
        footprint(SHAPE, trained, base("hardware.accelerator=gpu", *keys), 1).step
        for keys in (twice[:1], twice)
    )
    assert dropped < kept / 3
    unread = trained._replace(read=0.0)
    assert footprint(SHAPE, unread, base("hardware.micro_tokens=1000"), 1).step < plain
    assert footprint(SHAPE, Holds(1), base(), 1).step == 0


def test_sampling_holds_a_cache_for_each_row_and_the_folded_weights():
    shape = replace(SHAPE, reached=0, vocabulary=0)
    replies = Holds(1, rows=1000, length=50)
    few = footprint(shape, replies, base("hardware.sample_rows=8"), 1).sampling
    assert few * GIB == pytest.approx(8 * 50 * 512 * 2)
    assert footprint(shape, replies._replace(rows=4), base(), 1).sampling == pytest.approx(few / 2)
    folded = footprint(SHAPE, replies, base(), 1).sampling
    assert folded - footprint(SHAPE, replies, base("model.quantization=nf4"), 1).sampling > 1399


@pytest.mark.parametrize("part, key", [
    ("weights", "model.quantization=nf4"),
    ("trained", "adamw_8bit"),
    ("step", "hardware.micro_tokens=2048"),
    ("sampling", "hardware.sample_rows=64"),
])  # fmt: skip
def test_what_cannot_fit_is_refused_with_the_key_to_change(part, key, monkeypatch):
    monkeypatch.setattr(run, "memory_of", lambda hardware: 5.0)
    sizes = dict.fromkeys(("libraries", "weights", "trained", "step", "sampling"), 0.5)
    fits = Footprint(**sizes)
    large = Footprint(**{**sizes, part: 9.0})
    run.check_memory({"sft": fits}, base())
    with pytest.raises(UserError) as caught:
        run.check_memory({"sft": fits, "rl": large}, base())
    text = str(caught.value)
    assert text.startswith("stage rl needs about ")
    assert "there are 5.0" in text
    assert f"{part} 9.0 of it" in text
    assert key in text


def test_a_packed_base_is_not_told_to_be_packed():
    large = Footprint(0.5, 9.0, 0.1, 0.1, 0.1)
    packed = base()
    packed.model.quantization = Quantization.nf4
    assert "smaller model" in remedy(large, packed)[1]


def test_the_plan_knows_the_peak_of_every_stage_before_it_runs():
    config = composed_config("model=smollm2", "hardware=cpu", "stage=evaluate")
    steps = [Step(stage, None, {}, "", (), State.run) for stage in stages().values()]
    memory = run.footprints(steps, config)
    assert set(memory) == set(stages())
    assert all(0.8 < found.peak < 20 for found in memory.values())
    assert memory["rl"].trained > memory["sft"].trained
    assert run.footprints([replace(steps[0], state=State.reuse)], config) == {}
    full = composed_config("model=smollm2", "hardware=cpu", "stage=rl", "rl.full_finetuning=true")
    policy = [step for step in steps if step.stage.name == "rl"]
    copy = run.footprints(policy, full)["rl"]
    # the policy and its reference, in float32, beside the base
    assert copy.weights - memory["rl"].weights == pytest.approx(2 * 4 * 134_515_008 / GIB)
    assert config.hardware.strategy is Strategy.ddp
    assert config.model.source is ModelSource.embedded
