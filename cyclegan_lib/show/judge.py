"""`cyclegan judge`: what `pictures.judge` finds, printed and drawn."""

from cyclegan_lib.cyclegan import resolve_device
from cyclegan_lib.files import write_atomic
from cyclegan_lib.pictures.judge import inception_scores, judge_checkpoint
from cyclegan_lib.show import plots


def command(args):
    size, device = (args.size, args.size) if args.size else None, resolve_device(args.device)
    found = judge_checkpoint(args.checkpoint, args.direction, args.dataset, size, args.data_root, device, args.limit)
    print(found.report())
    if args.nearest:
        write_atomic(args.nearest, plots.to_png(plots.picture_rows(found.nearest_rows())))
    if args.kid:
        scores = inception_scores(found.pictures["fake"], found.pictures["target"])
        print(f"KID {scores['KID']:.4f} ± {scores['KID_std']:.4f}, FID {scores['FID']:.1f}")
