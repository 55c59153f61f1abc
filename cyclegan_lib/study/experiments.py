"""The experiments as data. Runs of one seed share pictures, their order and, where shapes allow, first weights."""

import itertools
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from cyclegan_lib.config import OUTPUT_NORMS, TrainConfig
from cyclegan_lib.errors import UserError

DRAWN_DATA = "water2wine"
MAIN_ARMS = ("none", "instance")
NO_LIMIT = 10**6  # epochs: a run ends after its steps
# What the student began with, and which of it they then replaced, one by one and together.
FIRST = dict(lambda_identity=0.0, decay_epoch=NO_LIMIT, no_init=True)
NEW = {"": [], " + identity": ["lambda_identity"], " + decay": ["decay_epoch"], " + init": ["no_init"], " + all": FIRST}
DIARY = {name: {key: FIRST[key] for key in FIRST if key not in added} for name, added in NEW.items()}
# Changes of an arm that are arguments of `write_dataset`, and their values in water2wine; others are options.
DRAWN = {"confounding": 0.5, "glass_confounding": 0.5, "num_train": 400}
# Others are neither: so many times as many steps; one of `variants.NORMS`, of `variants.CHANGES`, of
# `variants.SURGERIES` after the first half, and the arm that is the same until then.
PASSED_IN = ("times", "norm", "changed", "surgery", "trunk")
CONFOUNDINGS = (0.5, 0.65, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Experiment:
    """Arms, each a change to the base configuration, and how many seeds each is run with."""

    seeds: int
    arms: dict
    keep: tuple = ()  # arms: the generators of the first seed's runs are kept
    keep_at: tuple = (1,)  # when, as shares of the run


ALONE = dict(output_norm="instance", lambda_adversarial=0.0, lambda_cycle=0.0)  # the identity loss, with the norm
OUTPUT_NORM_EXPERIMENTS = {
    "output_norm": Experiment(5, {norm: dict(output_norm=norm) for norm in OUTPUT_NORMS}, MAIN_ARMS,
                              (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1)),
    "diary": Experiment(3, {norm + added: dict(output_norm=norm, **changes)
                            for norm in MAIN_ARMS for added, changes in DIARY.items()}),
    "mirror": Experiment(3, {
        "discriminator_instance": dict(discriminator_instance=True),
        "both": dict(output_norm="instance", discriminator_instance=True),
    }),
    # What keeps the arm with the norm above the floor? Without an adversary; one generator, once through.
    "above_the_floor": Experiment(3, {
        "instance, no adversary": dict(output_norm="instance", lambda_adversarial=0.0),
        "instance, identity alone": ALONE,
        "without first norm": dict(changed="without first norm", **ALONE),
        "without inner norms": dict(changed="without inner norms", lr=5e-4, **ALONE),
        "means handed on": dict(changed="means handed on", **ALONE),
    }),
    "confounded": Experiment(5, {norm: dict(output_norm=norm, confounding=0.95, glass_confounding=0.95)
                                 for norm in MAIN_ARMS}),
    # After the first half of twice as many steps the layer is taken out of a stuck training.
    "surgery": Experiment(5, {
        "it stays": dict(output_norm="instance", times=2),
        "taken out": dict(output_norm="instance", times=2, surgery="taken out", trunk="it stays"),
    }, ("it stays", "taken out"), (0.5, 0.51, 0.55, 0.6, 1)),
    # The layer out of a stuck run, the last convolution alone for 50 steps; and into a healthy run.
    "surgery_controls": Experiment(3, {
        "last layer first": dict(output_norm="instance", times=2, surgery="last layer first", trunk="it stays"),
        "never there": dict(norm="removed", times=2),
        "put in": dict(norm="removed", times=2, surgery="put in", trunk="never there"),
    }),
    "half": Experiment(5, {"mean_only": dict(norm="mean_only"), "scale_only": dict(norm="scale_only"),
                           "demodulated": dict(changed="demodulated")}, ("mean_only", "scale_only")),
    # What "instance, identity alone" and "instance, no adversary" are to be compared with.
    "controls": Experiment(3, {
        "none, identity alone": dict(lambda_adversarial=0.0, lambda_cycle=0.0),
        "none, no adversary": dict(lambda_adversarial=0.0),
    }),
    # Does the gap to the floor close with five times the steps?
    "longer": Experiment(3, {
        "none, longer": dict(times=5),
        "instance, longer": dict(output_norm="instance", times=5),
    }),
    # Can a scale that is learned bring the arm with the norm below the floor, where it begins large enough?
    "learned_scale": Experiment(3, {
        "scale 1": dict(output_norm="instance_affine"),
        "scale 3": dict(output_norm="instance_affine", changed="scale 3"),
        "scale 10": dict(output_norm="instance_affine", changed="scale 10"),
    }),
}  # fmt: skip
# What the data taught it: walls or glasses that follow the liquid, and what might help.
BACKGROUND = {f"background {share}": dict(confounding=share) for share in CONFOUNDINGS}
GLASS = {f"glass {share}": dict(glass_confounding=share) for share in CONFOUNDINGS}
ALIKE = {"independent": {}, "confounded": dict(confounding=1.0, glass_confounding=1.0)}
DATA_EXPERIMENTS = {
    "background": Experiment(3, BACKGROUND, tuple(BACKGROUND)),
    "background_no_identity": Experiment(3, {f"{arm}, no identity": dict(lambda_identity=0.0, **changes)
                                             for arm, changes in BACKGROUND.items()}),
    "glass": Experiment(3, GLASS, tuple(GLASS)[1:]),
    "identity": Experiment(3, {f"{data}, identity {weight:g}": dict(lambda_identity=weight, **changes)
                               for data, changes in ALIKE.items() for weight in (0.0, 5.0, 10.0)}),
    # Why does the paper take batches of one?
    "batch": Experiment(3, {
        "batches of 4": {},
        "batches of 1, as many steps": dict(batch_size=1),
        "batches of 1, as many pictures": dict(batch_size=1, times=4),
    }),
    "augmentation": Experiment(3, {f"{count} pictures, {name}": dict(num_train=count, no_augment=name != "augmented")
                                   for count in (400, 40) for name in ("augmented", "as they are")}),
}  # fmt: skip
EXPERIMENTS = OUTPUT_NORM_EXPERIMENTS | DATA_EXPERIMENTS


def base_config(**changes):
    """The configuration of all runs, so small that sixty of them fit into an evening; `changes` are options."""
    return TrainConfig(**dict(
        dataset_name=DRAWN_DATA, img_height=64, img_width=64, batch_size=4, num_epochs=NO_LIMIT, base_channels=12,
        num_residual=3, lambda_adversarial=1.0, lambda_cycle=10.0, lambda_identity=5.0, gan_mode="lsgan", lr=1e-3,
        sample_interval=0, checkpoint_interval=0, num_workers=0,
    ) | changes)  # fmt: skip


def has_output_norm(row):
    """Whether the generators of this row of history.csv end in an InstanceNorm without a learned scale.

    A surgery is after 500 of the 1,000 steps, as in the committed tables; its rows of that step are of after it.
    """
    changes, cut = EXPERIMENTS[row["experiment"]].arms[row["arm"]], 500
    if changes.get("surgery") == "put in":
        return row["step"] >= cut
    return changes.get("output_norm") == "instance" and ("surgery" not in changes or row["step"] < cut)


@dataclass
class Run:
    """One training, and the rows it stands for: two experiments may share an arm."""

    config: TrainConfig
    drawn: dict  # how its data set is drawn
    passed_in: dict = field(default_factory=dict)  # what of `PASSED_IN` its arm has
    labels: list = field(default_factory=list)  # (experiment, arm, seed)
    kept_as: list = field(default_factory=list)  # the arms' names under which its generators are kept
    keep_at: set = field(default_factory=set)  # and when, as shares of the run
    trunk: Path | None = None  # the folder of the run that is the same until the cut

    @property
    def cut(self):
        """The step after which an arm of twice the steps may be changed; None for others."""
        return self.config.max_steps // 2 if self.passed_in.get("times") == 2 else None


def settled(args):
    """The arguments with the defaults that depend on others; a `UserError` names an unknown experiment or arm."""
    args.experiments = args.experiments or list(OUTPUT_NORM_EXPERIMENTS)
    _check_names("experiments", args.experiments, EXPERIMENTS)
    if args.dataset_name != DRAWN_DATA:  # other people's pictures get the two main arms
        args.experiments, args.arms = ["output_norm"], args.arms or MAIN_ARMS
        args.output = args.output or Path(f"runs/ablation_{args.dataset_name}")
    _check_names("arms", args.arms or (), [arm for name in args.experiments for arm in EXPERIMENTS[name].arms])
    folder = "debugging" if set(args.experiments) <= set(DATA_EXPERIMENTS) else "ablation"
    args.output = args.output or args.data_root / folder
    args.work = args.work or Path("runs") / args.output.name
    return args


def _check_names(option, names, known):
    for name in names:
        if name not in known:
            raise UserError(f"--{option} {name!r}: there is none of that name; there are {', '.join(known)}")


def plan(args):
    """The `Run`s in the order in which they are wanted; runs that are one and the same appear once."""
    runs = {}
    for name in dict.fromkeys(args.experiments):
        experiment = EXPERIMENTS[name]
        arms = [arm for arm in experiment.arms if arm in (args.arms or experiment.arms)]
        for seed, arm in itertools.product(range(args.seeds or experiment.seeds), arms):
            run = run_of(args, seed, experiment.arms[arm])
            run = runs.setdefault((astuple(run.config), *run.passed_in.items()), run)
            run.labels.append((name, arm, seed))
            if seed == 0 and arm in experiment.keep:
                run.kept_as.append(arm)
                run.keep_at.update(experiment.keep_at)
    for run in runs.values():
        name = " ".join(map(str, run.labels[0])).replace(" + ", "+").replace(", ", "-").replace(" ", "_")
        run.config = replace(run.config, run_name=name)
        run.config.check()
    for run in runs.values():
        arm = run.passed_in.get("trunk")
        run.trunk = next((other.config.models_folder for other in runs.values() for _, name, seed in other.labels
                          if (name, seed) == (arm, run.config.seed)), None)  # fmt: skip
    return sorted(runs.values(), key=lambda run: run.trunk is not None)  # a trunk comes before its branches


def run_of(args, seed, changes):
    """The run of an arm, as yet without labels."""
    drawn = {key: changes.get(key, value) for key, value in DRAWN.items()}
    passed_in = {key: changes[key] for key in PASSED_IN if key in changes}
    options = {key: value for key, value in changes.items() if key not in {*DRAWN, *PASSED_IN}}
    steps = args.steps * changes.get("times", 1)
    name = "_".join([args.dataset_name, *(f"{key}_{value}" for key, value in drawn.items() if value != DRAWN[key])])
    return Run(base_config(**dict(
        dataset_name=name, data_root=args.data_root, output_root=args.work, resume="auto", overwrite=True,
        img_height=args.size, img_width=args.size, max_steps=steps, batch_size=args.batch_size,
        device=args.device, precision=args.precision, seed=seed,
    ) | options), drawn, passed_in)  # fmt: skip
