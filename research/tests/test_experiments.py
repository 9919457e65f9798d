"""The lists of runs: what is compared, and that nothing but the arm differs."""

from dataclasses import replace

import pytest

from napari_simmat.models.spec import Base, Channel, InputSize, ModelSpec, Normalization
from simmat_research.experiments import (
    ARMS,
    BENCHMARK_SENSORS,
    GRID,
    LEARNING_RATES,
    PAPER_PROTOCOL,
    TRAINING_SHARES,
    BenchmarkConfig,
    Shard,
    make_runs,
)

OTHERS = ("zero-shot", "scratch", "baseline A", "baseline B")
CONFIG = BenchmarkConfig(steps=20, rate=3e-4, scratch_rate=1e-3, full_rate=3e-5, tuning="adapter")


@pytest.mark.parametrize(
    ("experiment", "each"),
    [
        ("transfer", len(ARMS)),
        ("pseudo", 3),
        ("grid", 1 + len(GRID)),
        ("strategies", 8),
        ("layers", 8),
        ("lr", 2 * len(LEARNING_RATES)),
        ("size", 2 * len(TRAINING_SHARES)),
    ],
)
def test_make_runs_repeats_runs_for_modality_and_seed(experiment, each):
    runs = make_runs(experiment, ("a", "b"), (0, 1), CONFIG)
    assert len(runs) == 4 * each
    assert len({run.key for run in runs}) == len(runs)
    own = [
        {(r.arm, r.learning_rate, r.share) for r in runs if (r.modality, r.seed) == which}
        for which in (("a", 0), ("a", 1), ("b", 0), ("b", 1))
    ]
    assert all(each == own[0] for each in own)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)  # a seed as a whole first


def test_make_runs_of_arms_differ_in_what_is_compared():
    runs = make_runs("transfer", ("a",), (0,), CONFIG)
    by_arm = {run.arm: run for run in runs}
    assert by_arm.pop("zero-shot").steps == 0
    assert {run.steps for run in by_arm.values()} == {20}
    assert by_arm.pop("scratch").learning_rate == 1e-3
    full = by_arm.pop("SimMAT, full")
    assert (full.transfer, full.strategy, full.learning_rate) == ("simmat", "full", 3e-5)
    assert {run.learning_rate for run in by_arm.values()} == {3e-4}
    configs = [run.config(CONFIG) for run in by_arm.values()]
    assert {config.strategy for config in configs} == {"adapter"}
    assert [config.transfer for config in configs] == ["baseline_a", "baseline_b", "simmat"]
    for config in configs:  # the paper's protocol
        assert (config.prompts, config.corrections, config.auxiliary) == (("click",), 0, False)
        assert not config.augment


def test_make_runs_of_size_takes_shares_of_the_images():
    runs = make_runs("size", ("a",), (0,), CONFIG)
    assert sorted({run.share for run in runs}) == sorted(TRAINING_SHARES)
    full = [run for run in runs if run.strategy == "full"]
    assert {run.learning_rate for run in full} == {3e-5}


def spec_of(architecture: str) -> ModelSpec:
    base = Base(name="b", architecture=architecture, sha256="")
    return ModelSpec(
        name="b",
        modality="",
        channels=(Channel(name="gray", mean=0.0, std=1.0),),
        normalization=Normalization(),
        input_size=InputSize(),
        base=base,
    )


def test_config_on_a_foundation_chooses_the_tuning():
    assert BenchmarkConfig().on(spec_of("tiny")).tuning == "lora_conv"
    assert BenchmarkConfig().on(spec_of("vit_b")).tuning == "lora"
    assert CONFIG.on(spec_of("vit_b")) == replace(CONFIG, protocol="drawn")
    for architecture, data, protocol in (
        ("vit_b", "AIMS", "paper"),
        ("vit_t", "AIMS", "paper"),
        ("tiny", "AIMS", "drawn"),
        ("vit_b", "generated", "drawn"),
    ):
        assert BenchmarkConfig().on(spec_of(architecture), data).protocol == protocol
    assert BenchmarkConfig(protocol="drawn").on(spec_of("vit_b"), "AIMS").protocol == "drawn"
    rates = make_runs("lr", ("a",), (0,), CONFIG)
    assert {run.strategy for run in rates} == {"adapter", "full"}
    with pytest.raises(ValueError, match="follows from it: use"):
        make_runs("transfer", ("a",), (0,), BenchmarkConfig())


def test_make_runs_by_the_papers_protocol_has_the_authors_values():
    """Their values, as read in their code; 10 images of a batch of 4 are 3 steps an epoch."""
    config = BenchmarkConfig(protocol="paper", tuning="lora")
    seeds = config.seeds_of("transfer")
    runs = make_runs("transfer", ("nir",), seeds, config, {"nir": 10})
    assert {run.seed for run in runs} == {7777}
    by_arm = {run.arm: run for run in runs}
    assert by_arm.pop("zero-shot").steps == 0
    assert {run.steps for run in by_arm.values()} == {51 * 3}
    assert by_arm["scratch"].strategy == "scratch_full"
    assert by_arm.pop("SimMAT, full").learning_rate == 3e-5
    for run in by_arm.values():
        training = run.config(config)
        assert (training.epochs, training.batch, training.objects) == (51, 4, 1)
        assert (training.prompts, training.corrections) == (("anywhere",), 0)
        assert (training.augment, training.auxiliary, training.smoothing) == (False, False, 1e-5)
        assert (training.halve_every, training.validate_every) == (10, 5)
        assert (training.validation_objects, training.precision) == (0, "32-true")
        assert (training.tf32, training.as_published) == (True, True)
        assert training.learning_rate == 3e-4
        for name, (value, _) in PAPER_PROTOCOL.items():
            if name != "rate" and hasattr(training, name):
                assert getattr(training, name) == value
    full = next(r for r in make_runs("strategies", ("d",), (0,), config) if r.strategy == "full")
    assert (full.learning_rate, config.value("test_objects")) == (3e-5, 0)
    few = make_runs("size", ("nir",), seeds, config, {"nir": 100})
    assert {run.steps for run in few} == {51 * n for n in (2, 3, 7, 13, 25)}
    changed = replace(config, objects=2, steps=9)
    assert changed.value("objects") == runs[1].config(changed).objects == 2
    assert "| objects | 2 | 1 | dataset.py: one region_id, drawn in" in changed.describe()
    assert "| steps | 9 | 51 epochs | train.py: main |" in changed.describe()


def test_config_of_quick_form_is_short():
    full, quick = BenchmarkConfig(), BenchmarkConfig(quick=True)
    assert full.modalities_of("transfer", "generated") == BENCHMARK_SENSORS
    assert full.seeds_of("transfer") == (0, 1, 2)
    assert full.seeds_of("lr") == (0,)
    assert full.steps_for(9) == 1500
    assert len(quick.modalities_of("transfer", "generated")) == 2
    assert quick.seeds_of("transfer") == (0,)
    assert quick.steps_for(9) == 150
    on_sam = replace(quick, tuning="lora")
    counts = {"lr": 6, "size": 6, "strategies": 8, "pseudo": 3, "transfer": 6, "grid": 3}
    for name, count in counts.items():
        assert len(make_runs(name, ("thermal",), (0,), on_sam)) == count
    assert BenchmarkConfig(quick=True, steps=10).steps_for(9) == 10
    assert full.modalities_of("pseudo", "generated") == ("rgb+thermal", "rgb+multispectral")
    assert "rgbd" in full.modalities_of("pseudo", "/data")
    assert "d" in full.modalities_of("transfer", "/data")
    chosen = BenchmarkConfig(modalities=("depth",), seeds=(4,))
    assert chosen.modalities_of("transfer", "generated") == ("depth",)
    assert chosen.seeds_of("transfer") == (4,)
    for name in ("lr", "size"):  # figures 5a and 5b
        for config in (full, quick):
            assert config.modalities_of(name, "generated") == ("polarization",)
            assert config.modalities_of(name, "/data") == ("pgsnet_p",)
        assert chosen.modalities_of(name, "/data") == ("depth",)
    with pytest.raises(ValueError, match="at least one step"):
        BenchmarkConfig(steps=0)


def test_arms_of_another_layer_or_tuning_have_names_of_their_own():
    tiny = spec_of("tiny")
    simcmf = BenchmarkConfig(transfer="simcmf").on(tiny)
    for name, arms in (
        ("transfer", [*OTHERS, "simcmf", "simcmf, full"]),
        ("pseudo", ["zero-shot", "baseline A", "simcmf"]),
    ):
        runs = make_runs(name, ("a",), (0,), simcmf)
        assert [run.arm for run in runs] == arms
        assert {run.transfer for run in runs if run.arm[:6] == "simcmf"} == {"simcmf"}
        assert [run.arm for run in runs if run.is_kept] == (
            ["scratch", "simcmf"] if name == "transfer" else []
        )
    for name in ("strategies", "lr", "size"):
        assert {run.transfer for run in make_runs(name, ("a",), (0,), simcmf)} == {"simcmf"}
    for name in ("layers", "grid"):
        with pytest.raises(ValueError, match=f"{name} compares transfer layers itself; leave"):
            make_runs(name, ("a",), (0,), simcmf)
    full = BenchmarkConfig(tuning="full").on(tiny)
    by_arm = {run.arm: run for run in make_runs("pseudo", ("a",), (0,), full)}
    assert list(by_arm) == ["zero-shot", "baseline A, full", "SimMAT, full"]
    assert {run.strategy for run in by_arm.values()} == {"frozen", "full"}
    assert "SimMAT, full" not in {run.arm for run in make_runs("transfer", ("a",), (0,), full)}
    some = replace(full, arms=("zero-shot", "SimMAT"))
    runs = make_runs("transfer", ("a",), (0,), some)
    assert [run.arm for run in runs] == ["zero-shot", "SimMAT"]
    for name in ("SimMAT", "simcmf"):
        runs = make_runs("pseudo", ("a",), (0,), replace(simcmf, arms=("zero-shot", name)))
        assert [run.arm for run in runs] == ["zero-shot", "simcmf"]
    with pytest.raises(ValueError, match=r"no arm 'SimMAT'; use some of zero-shot | baseline A, f"):
        make_runs("pseudo", ("a",), (0,), some)
    with pytest.raises(ValueError, match="--arms chooses of transfer, pseudo; leave it out"):
        make_runs("lr", ("a",), (0,), some)
    with pytest.raises(ValueError, match="zeroshot is no transfer layer; choose another"):
        BenchmarkConfig(transfer="zeroshot")


def test_uniform_start_concerns_the_layers_that_have_it():
    config = BenchmarkConfig(uniform_init=True, tuning="lora", steps=3)
    starts = {
        run.transfer: run.config(config).start for run in make_runs("layers", ("a",), (0,), config)
    }
    uniform = {name for name, start in starts.items() if start == "uniform"}
    assert uniform == {"baseline_b", "simcmf", "simcmf_b", "simcmf_d"}
    assert set(starts.values()) == {"uniform", "random"}


def test_files_tell_apart_what_rows_do_not_compare():
    tiny, sam = spec_of("tiny"), spec_of("vit_b")

    def stem(base=tiny, experiment="pseudo", **settings):
        config = BenchmarkConfig(**settings)
        assert config.on(base).stem_of(experiment, base) == config.stem_of(experiment, base)
        return config.stem_of(experiment, base)

    assert stem() == stem(tuning="lora_conv") == stem(sam, tuning="lora") == "pseudo"
    assert stem(sam, tuning="lora_conv") == "pseudo-lora_conv"
    assert stem(quick=True, tuning="full", transfer="simcmf") == "quick-pseudo-full-simcmf"
    assert stem(experiment="layers", uniform_init=True) == "layers-uniform"
    folders = [
        BenchmarkConfig(quick=quick, uniform_init=uniform).folder
        for quick in (False, True)
        for uniform in (False, True)
    ]
    assert folders == ["runs", "runs-uniform", "quick-runs", "quick-runs-uniform"]


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "1/2/3", ""])
def test_shard_of_no_part_is_refused(text):
    with pytest.raises(ValueError, match=r"give I/N, such as 2/4 for the second of four"):
        Shard.of(text)


@pytest.mark.parametrize("parts", [1, 3, 4])
def test_shards_hold_each_run_once(parts):
    shards = [Shard.of(f"{number}/{parts}") for number in range(1, parts + 1)]
    assert [sum(shard.holds(index) for shard in shards) for index in range(10)] == [1] * 10
