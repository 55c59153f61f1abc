"""Several views of translations whose right answers nobody knows. Pictures are (N, C, H, W) in [-1, 1]."""

import io
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image

import cyclegan_lib.torchvision_shim  # noqa: F401  (before torchvision, see there)
from cyclegan_lib.datasets import load_split, to_signed
from cyclegan_lib.errors import UserError
from cyclegan_lib.files import read_header
from cyclegan_lib.pictures.check import STATISTICS, TELLING, separation
from cyclegan_lib.pictures.reading import read_picture
from cyclegan_lib.pictures.translate import to_uint8
from cyclegan_lib.pictures.weights import load_generators, weights_file
from cyclegan_lib.water2wine.dataset import dataset_folder
from torchvision.transforms.v2 import functional as TF

SHARES = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000  # at which quantiles are compared
POOLED = 4 * 10**6  # numbers of a sample, at most, of which quantiles are taken
THUMBNAIL = 16  # pixels a side, at which pictures are compared: composition and colours, no texture
ENOUGH = 20  # test pictures of each side: with fewer there is no verdict
QUALITY, SURVIVES = 90, 2  # of a JPEG, and how much more it may change what comes back from fakes than from real B
NEAR = 0.05  # the share of real test pictures that count as copies of a training picture


def wasserstein(x, y):
    """The Wasserstein-1 distance of two samples of any size: the mean distance of their quantiles, in their unit."""
    quantiles = []
    for sample in (x.flatten().double(), y.flatten().double()):
        if len(sample) > POOLED:  # at random, not at regular steps: networks leave patterns of every second pixel
            sample = sample[torch.randint(len(sample), (POOLED,), generator=torch.Generator().manual_seed(0))]
        quantiles.append(sample.sort().values[(SHARES * len(sample)).long()])
    return (quantiles[0] - quantiles[1]).abs().mean().item()


def distances(pictures, real):
    """How far `pictures` are from looking like `real`: {statistic: Wasserstein distance}; nonsense can agree in all."""
    pairs = list(zip(pictures.unbind(1), real.unbind(1), strict=True))
    statistics = STATISTICS if len(pairs) == 3 else {}
    return {
        **{name: wasserstein(of(pictures), of(real)) for name, of in statistics.items()},
        "pixel values": sum(wasserstein(p, r) for p, r in pairs) / len(pairs),
        "edges (neighbours' difference)": wasserstein(gradients(pictures), gradients(real)),
    }


def gradients(pictures):
    """|differences| between neighbouring pixels, down and across, all in one row."""
    return torch.cat([pictures.diff(dim=dim).abs().flatten() for dim in (2, 3)])


def nearest(pictures, train):
    """For each picture the training picture most like it, or its mirror image: (indices, mean |difference|), (N,)."""
    small, mirrored, small_train = (
        F.adaptive_avg_pool2d(some, THUMBNAIL).flatten(1) for some in (pictures, pictures.flip(3), train)
    )
    distance = torch.minimum(*(torch.cdist(some, small_train, p=1) for some in (small, mirrored))).min(1)
    return distance.indices, distance.values / small.shape[1]


def copied(fakes, test, train):
    """The share of fakes nearer to a training picture than 95 % of real test pictures are: far above 0.05, copies."""
    limit = nearest(test, train)[1].quantile(NEAR)
    return (nearest(fakes, train)[1] < limit).double().mean().item()


def jpeg(pictures, quality=QUALITY):
    """Pictures (N, C, H, W) as they are read again from JPEG files of this quality, 1 to 95."""
    read = []
    for picture in to_uint8(pictures).permute(0, 2, 3, 1).squeeze(3).numpy():  # (H, W, 3), or (H, W)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "jpeg", quality=quality)
        read.append(TF.pil_to_tensor(Image.open(file)))
    return to_signed(torch.stack(read))


def changed_by_jpeg(G, pictures):
    """How much a JPEG of `pictures` changes what `G` makes of them: the mean |difference|."""
    device = next(G.parameters()).device
    changes = [(G(jpeg(some).to(device)) - G(some.to(device))).abs().sum().item() for some in pictures.split(8)]
    return sum(changes) / pictures.numel()


def inception_scores(fakes, real, feature=2048):
    """{"KID", "KID_std", "FID"} of colour pictures. `feature`: a layer of torchmetrics' Inception, or a network."""
    # KID: Bińkowski et al., 2018, unbiased for any number of pictures; FID: Heusel et al., 2017, is not.
    with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # KID draws its subsets
        try:
            from torchmetrics.image.fid import FrechetInceptionDistance
            from torchmetrics.image.kid import KernelInceptionDistance

            subset = min(100, len(fakes), len(real))
            scores = KernelInceptionDistance(feature, subset_size=subset), FrechetInceptionDistance(feature)
        except ImportError:
            raise UserError('KID and FID need packages: pip install "torchmetrics[image]"') from None
        except OSError as error:
            raise UserError(f"the weights for KID and FID cannot be downloaded ({error})") from None
        for score in scores:
            for pictures, is_real in ((real, True), (fakes, False)):
                for batch in to_uint8(pictures).split(32):
                    score.update(batch, real=is_real)
        (kid, kid_std), fid = (score.compute() for score in scores)
    return {"KID": kid.item(), "KID_std": kid_std.item(), "FID": fid.item()}


class Judgement:
    """Translations, judged: `real` and `fake` beside `target` and `train`, test and training pictures of fake's domain.

    `.table` is {statistic: the distances of real, fake and train to target}; `.copied` as the function `copied` says.
    With `back`, the generator that goes back, `.by_jpeg` is `changed_by_jpeg` of fake and of target.
    """

    def __init__(self, real, fake, target, train, direction, back=None):
        self.source, self.target = direction[0], direction[-1]
        self.pictures = {"real": real, "fake": fake, "target": target, "train": train}
        columns = [distances(pictures, target) for pictures in (real, fake, train)]
        self.table = {name: tuple(column[name] for column in columns) for name in columns[0]}
        self.copied = copied(fake, target, train)
        self.by_jpeg = back and [changed_by_jpeg(back, pictures) for pictures in (fake, target)]

    def report(self):
        """A table in a few lines of text."""
        real, fake, target, train = map(len, self.pictures.values())
        columns = f"{real} real {self.source}", f"{fake} fake {self.target}", f"{train} train{self.target}"
        lines = [f"{f'distance to {target} test{self.target}':32}" + "".join(f"{name:>12}" for name in columns)]
        lines += [f"{name:32}" + "".join(f"{value:12.3f}" for value in values) for name, values in self.table.items()]
        close = f"{self.copied:.0%} of the fakes are suspiciously close to a training picture; chance gives {NEAR:.0%}"
        return "\n".join([*lines, close, *self.hidden(), self.verdict()])

    def hidden(self):
        """In a line, whether what comes back survives a JPEG of the fakes: if it does not, they hide a faint code."""
        if not self.by_jpeg:
            return []
        fake, target = self.by_jpeg
        changes = f"changes what comes back by {fake:.3f} from fake {self.target} and by {target:.3f} from real ones"
        told = "does not survive" if fake > SURVIVES * target else "survives"
        return [f"the reconstruction {told} JPEG at quality {QUALITY}: it {changes}"]

    def verdict(self):
        """In one sentence, which statistics of a picture, each alone, tell a fake from a real one (`separation`)."""
        fake, target = (self.pictures[name].expand(-1, 3, -1, -1) for name in ("fake", "target"))
        if (count := min(len(fake), len(target))) < ENOUGH:
            why = f"chance decides, and {ENOUGH} are needed (cyclegan collect --test_share)"
            return f"no verdict: with {count} test pictures of a side {why}"
        found = {name: separation(of(fake), of(target)) for name, of in STATISTICS.items()}
        tell = [f"{name} in {share:.0%}" for name, (share, error) in found.items() if share - 2 * error > TELLING]
        told = f"one number alone tells fake from real, {', '.join(tell)} of the pictures"
        like = f"no number here, alone, tells fakes from real {self.target}; none of them looks at what is shown"
        return f"verdict: not like real {self.target} yet: {told}" if tell else f"verdict: {like}"

    def nearest_rows(self, count=6):
        """The fakes that are most like training pictures, and these: {name: (N, C, H, W)}, for `plots.picture_rows`."""
        real, fake, train = (self.pictures[name] for name in ("real", "fake", "train"))
        indices, distance = nearest(fake, train)
        first = distance.argsort(stable=True)[:count]
        rows = {f"real {self.source}": real[first], f"fake {self.target}": fake[first]}
        return {**rows, f"the nearest of\ntrain{self.target}": train[indices[first]]}


@torch.inference_mode()
def judge_checkpoint(source, direction="AtoB", root=None, size=None, data_root=Path("data"), device="cpu", limit=500):
    """A `Judgement` of the test pictures in the data set `root`; it and `size` (H, W) default to the training's.

    Raises as `load_generator`, and where the checkpoint does not say these and they are not given.
    """
    path = weights_file(source)
    G, back = load_generators(path, direction)
    G, back = G.to(device), back and back.to(device)
    facts = read_header(path) if path.suffix == ".safetensors" else {}
    if not (root or "dataset_name" in facts) or not (size or "img_height" in facts):
        raise UserError(f"{source} does not say what it was trained on; give --dataset and --size")
    root = Path(root) if root else dataset_folder(data_root, facts["dataset_name"])
    size = size or (facts["img_height"], facts["img_width"])
    splits = f"test{direction[0]}", f"test{direction[-1]}", f"train{direction[-1]}"
    real, target, train = (load_split(root, name, size, G.model[1].in_channels, limit, read_picture) for name in splits)
    fake = torch.cat([G(batch.to(device)).cpu() for batch in real.split(8)])
    return Judgement(real, fake, target, train, direction, back)
