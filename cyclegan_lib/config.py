"""Everything that decides a training, with its default, its range and its help. No torch here."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from cyclegan_lib.errors import UserError, plain_name

OUTPUT_NORMS = ("none", "instance", "instance_affine", "batch")
GAN_MODES = ("lsgan", "vanilla")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda", "mps")


def option(default, help, **facts):  # noqa: A002  (argparse's word)
    """A field of `TrainConfig`, which is a command-line option too.

    Args:
        facts: what the value must be: `choices`, `least` and `most`, `above`, `multiple_of`, `is_name`;
            `type`, where the default does not show it; `command_line=False`, for what only experiments change.
            `on_resume` is read by `runs.resume`. It says what to do if the value differs from the checkpoint's:
            "refuse", "ignore" or "warn" (the default). Options marked "place" are not compared.
    """
    return field(default=default, metadata={"help": help, **facts})


@dataclass
class TrainConfig:
    """A training run. Every field is a command-line option too, unless it says otherwise.

    The first nine have the names and the defaults of the student's script, and these are the
    paper's but for the batch size (1 in the paper). Defaults of other options that the paper speaks of are the paper's.
    """

    start_from: int = option(0, "continue after this epoch's checkpoint; 0: do not", least=0, on_resume="place")
    num_epochs: int = option(200, "an epoch is one pass through the larger of the two sides", least=1)
    dataset_name: str = option("horse2zebra", "a folder in data_root", is_name=True, on_resume="refuse")
    batch_size: int = option(10, "pictures of each side in a step", least=1, most=10**4, on_resume="refuse")
    img_height: int = option(256, "pixels", least=24, most=8192, multiple_of=4, on_resume="refuse")
    img_width: int = option(256, "pixels", least=24, most=8192, multiple_of=4, on_resume="refuse")
    channels: int = option(3, "3: colour, 1: grey", choices=(1, 3), on_resume="refuse")
    num_residual: int = option(9, "residual blocks in a generator", least=1, most=100, on_resume="refuse")
    lambda_cycle: float = option(10.0, "weight of the cycle loss", least=0)
    lambda_identity: float = option(0.0, "weight of the identity loss; 5 is common, 0 leaves it out", least=0)
    output_norm: str = option("none", "norm before the generator's tanh", choices=OUTPUT_NORMS, on_resume="refuse")
    discriminator_instance: bool = option(False, "a norm on D's first layer", command_line=False, on_resume="refuse")
    lambda_adversarial: float = option(1.0, "weight of the adversarial loss", least=0, command_line=False)
    base_channels: int = option(64, "width of the networks' first layers", least=1, most=1024, on_resume="refuse")
    lr: float = option(2e-4, "learning rate of Adam, until the decay", above=0)
    decay_epoch: int | None = option(None, "epoch after which lr falls linearly to 0 (default: half way)", type=int)
    gan_mode: str = option("lsgan", "adversarial loss: least squares, or cross-entropy", choices=GAN_MODES)
    no_init: bool = option(False, "keep PyTorch's default initialisation instead of N(0, 0.02)", command_line=False)
    no_augment: bool = option(False, "use training pictures whole: no random crop, no flip")
    seed: int = option(0, "decides weights, order, crops and flips", least=0, most=2**31, on_resume="refuse")
    average: float = option(0.0, "decay of averaged generators, shown and saved too; 0: none", least=0, most=0.9999)
    precision: str = option("auto", "auto: the fastest that the device does well", choices=PRECISIONS)
    deterministic: bool = option(False, "on a GPU the same bits each time, and slower; a CPU does so anyway")
    num_workers: int | None = option(None, "loaders (default: auto)", type=int, least=0, most=128, on_resume="ignore")
    sample_interval: int = option(1, "epochs between sample sheets; 0: one at the end", least=0, on_resume="ignore")
    checkpoint_interval: int = option(10, "epochs between checkpoints; 0: at the end", least=0, on_resume="ignore")
    checkpoint_minutes: float = option(0.0, "minutes between checkpoints; 0: none", least=0, on_resume="ignore")
    keep_checkpoints: int = option(0, "epochs' checkpoints that are kept; 0: all", least=0, on_resume="ignore")
    max_steps: int | None = option(None, "end after so many steps, lr decayed by then", type=int, least=1)
    data_root: Path = option(Path("data"), "the folder of data sets", type=Path, on_resume="place")
    output_root: Path = option(Path("."), "where saved_models and generated_images go", type=Path, on_resume="place")
    run_name: str | None = option(None, "default: the data set's", type=str, is_name=True, on_resume="place")
    resume: str = option(
        "never", "auto: continue from the newest checkpoint", choices=("never", "auto"), on_resume="place"
    )
    overwrite: bool = option(False, "replace an earlier run (resuming: one of other settings)", on_resume="place")
    device: str = option("auto", "auto: cuda, mps or cpu, the first there is", choices=DEVICES)

    def check(self):
        """Raise a `UserError` with a line for each option that cannot be."""
        wrong = [line for option_ in dataclasses.fields(self) if (line := self._wrong(option_))]
        if self.decay_epoch is not None and not 0 <= self.decay_epoch <= self.num_epochs:
            wrong.append(f"--decay_epoch must be 0 to --num_epochs ({self.num_epochs}), not {self.decay_epoch}")
        if wrong:
            raise UserError("\n".join(wrong))

    def _wrong(self, option_):
        """What is wrong with an option's value, in a line; None if nothing is."""
        name, value, facts = option_.name, getattr(self, option_.name), option_.metadata
        if value is None and option_.default is None:
            return None
        if "choices" in facts and value not in facts["choices"]:
            return f"--{name} must be one of {', '.join(map(str, facts['choices']))}, not {value!r}"
        if "is_name" in facts:
            try:
                plain_name(name, value)
            except UserError as error:
                return str(error)
        least, most = facts.get("least"), facts.get("most", 10**9)
        multiple_of = facts.get("multiple_of")
        if least is not None and (not least <= value <= most or (multiple_of and value % multiple_of)):
            multiple = f"a multiple of {multiple_of} from " if multiple_of else ""
            return f"--{name} must be {multiple}{least} to {most}, not {value}"
        if "above" in facts and not facts["above"] < value < float("inf"):
            return f"--{name} must be a number above {facts['above']}, not {value}"
        return None

    @property
    def name(self):
        return self.run_name or self.dataset_name

    @property
    def dataset_folder(self):
        return Path(self.data_root) / self.dataset_name

    @property
    def models_folder(self):
        return Path(self.output_root) / "saved_models" / self.name

    @property
    def images_folder(self):
        return Path(self.output_root) / "generated_images" / self.name

    @property
    def size(self):
        return self.img_height, self.img_width


def demo_config(**changes):
    """The small configuration of `make demo`: water2wine at 64 pixels, minutes on two cores.

    The paper's method and its 70×70 discriminator; narrower networks, three residual blocks
    instead of six, batches of 4, a larger learning rate, an identity loss and averaged generators.
    """
    demo = dict(
        dataset_name="water2wine", img_height=64, img_width=64, batch_size=4, num_epochs=16, base_channels=12,
        num_residual=3, lambda_identity=5.0, lr=1e-3, average=0.99, sample_interval=4, checkpoint_interval=0,
    )  # fmt: skip
    return TrainConfig(**{**demo, **changes})
