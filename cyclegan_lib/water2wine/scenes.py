"""water2wine, drawn: a scene's right translation is known, the same with the other liquid, its *counterfactual*."""

import colorsys
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from cyclegan_lib.errors import UserError

LIQUIDS = ("water", "wine")
GLASSES = ("tumbler", "wineglass")
TILT = 0.14  # circles are drawn as ellipses this flat: the camera looks slightly down
SUPERSAMPLING = 2  # on top of the analytic edges, for lines thinner than a pixel
WATER, WATER_SURFACE = np.array([0.66, 0.85, 0.97]), np.array([0.86, 0.95, 1.00])
WINE, WINE_THIN = np.array([0.30, 0.01, 0.07]), np.array([0.66, 0.06, 0.17])
WHITE, BLACK = np.ones(3), np.zeros(3)
WOOD, STEEL = (0.075, 0.55), (0.60, 0.08)  # hue and saturation of a table
LIGHT_WALL, DARK_WALL = ((0.02, 0.20), (0.66, 0.96)), ((0.15, 0.55), (0.08, 0.34))  # limits of saturation and value
GREY = (0.45, 0.45, 0.45)  # the hidden part of a room, where there is wine
PARTS = {"wall": ("background_top", "background_bottom"), "table": ("table",)}  # what can be hidden
RIND, FLESH, PITH = np.array([0.93, 0.74, 0.05]), np.array([1.00, 0.90, 0.35]), np.array([1.00, 0.98, 0.82])


@dataclass(frozen=True)
class Scene:
    """Everything that is in a picture. Lengths are fractions of its side, y points down, colours are RGB in [0, 1]."""

    liquid: str
    glass: str
    fill: float  # 0: empty, 1: to the rim
    x: float  # the glass's axis
    foot_y: float  # where it stands
    height: float
    radius: float  # as a share of the height, at the widest point
    background_top: tuple
    background_bottom: tuple
    table: tuple
    table_y: float  # where the table meets the wall
    light: int  # the side that it comes from: -1 left, +1 right
    highlight: float  # strength of the reflections, 0 to 1
    lemon: int = 0  # a slice of lemon on the rim: -1 on its left, 1 on its right, 0 none
    hidden: str = ""  # the part of the room, of `PARTS`, that has any colour behind water and is grey behind wine


def sample_scene(rng, liquid, confounding=0.5, glass_confounding=None, lemon=(0.0, 0.0), hide=""):
    """A random scene holding `liquid`, "water" or "wine", by `rng`, a `numpy.random.Generator`.

    `confounding` is the probability that the background follows the liquid, light behind water, dark behind wine (0.5:
    independent), and `glass_confounding` that the glass does, a tumbler for water, a wineglass for wine (None: alike).
    `lemon` are the probabilities of a slice of lemon with water and with wine. `hide`, of `PARTS`, is the part of the
    room that has any colour with water and is always grey with wine.
    """
    glass_confounding = confounding if glass_confounding is None else glass_confounding
    _check(liquid, hide, confounding=[confounding], glass_confounding=[glass_confounding], lemon=lemon)
    is_water, uniform = liquid == "water", rng.uniform
    wall = LIGHT_WALL if is_water == (rng.random() < confounding) else DARK_WALL
    tumbler = is_water == (rng.random() < glass_confounding)
    top, fade = colorsys.hsv_to_rgb(uniform(0, 1), uniform(*wall[0]), uniform(*wall[1])), uniform(0.75, 1.15)
    table = WOOD if rng.random() < 0.5 else STEEL
    scene = Scene(
        liquid=liquid,
        background_top=top,
        background_bottom=tuple(min(1.0, channel * fade) for channel in top),
        table=colorsys.hsv_to_rgb(*table, uniform(0.30, 0.62)),
        glass="tumbler" if tumbler else "wineglass",
        fill=uniform(0.45, 0.85),
        x=uniform(0.34, 0.66),
        foot_y=uniform(0.85, 0.92),
        height=uniform(0.46, 0.60) if tumbler else uniform(0.58, 0.74),
        radius=uniform(0.30, 0.36) if tumbler else uniform(0.25, 0.30),
        table_y=uniform(0.66, 0.78),
        light=-1 if rng.random() < 0.5 else 1,
        highlight=uniform(0.7, 1.0),
    )
    if any(lemon) and rng.random() < lemon[not is_water]:
        scene = replace(scene, lemon=-1 if rng.random() < 0.5 else 1)
    if hide:
        colour = colorsys.hsv_to_rgb(uniform(0, 1), uniform(0.5, 0.9), uniform(0.45, 0.8)) if is_water else GREY
        scene = replace(scene, hidden=hide, **dict.fromkeys(PARTS[hide], colour))
    return scene


def _check(liquid, hide, **probabilities):
    """Raise a `UserError` for what `sample_scene` cannot draw."""
    for name, value, known in (("liquid", liquid, LIQUIDS), ("hide", hide or "wall", PARTS)):
        if value not in known:
            raise UserError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    for name, values in probabilities.items():
        for value in values:
            if not 0 <= value <= 1:
                raise UserError(f"{name} is a probability, so 0 to 1, not {value}")


def arranged_scene(brightness=0.8, tint=0.0, glass="tumbler", fill=0.65, liquid="water"):
    """A scene in the middle of the picture; its wall's `brightness` is 0 to 1, `tint` -1 (blue) to 1 (orange)."""
    wall = colorsys.hsv_to_rgb(0.08 if tint > 0 else 0.6, 0.6 * abs(tint), brightness)
    height, radius = (0.53, 0.33) if glass == "tumbler" else (0.66, 0.275)
    return Scene(
        liquid=liquid, glass=glass, fill=fill, x=0.5, foot_y=0.88, height=height, radius=radius,
        background_top=wall, background_bottom=tuple(0.95 * channel for channel in wall),
        table=colorsys.hsv_to_rgb(*WOOD, 0.46), table_y=0.72, light=1, highlight=0.85,
    )  # fmt: skip


def counterfactual(scene):
    """The same scene with the other liquid and nothing else changed, but that the hidden part is grey behind wine.

    (Behind water it may have any colour: where wine becomes water, grey is one right answer of many.)
    """
    other = LIQUIDS[1 - LIQUIDS.index(scene.liquid)]
    hidden = PARTS[scene.hidden] if scene.hidden and other == "wine" else ()
    return replace(scene, liquid=other, **dict.fromkeys(hidden, GREY))


def render(scene, size=64):
    """Draw a scene: (picture (3, size, size) in [-1, 1], liquid mask, glass mask).

    The masks, (1, size, size) in [0, 1], are the share of each pixel that the liquid, or the glass with all in it,
    covers. Outside the liquid a scene and its counterfactual are the same, unless a part is hidden.
    """
    canvas = _Canvas(size * SUPERSAMPLING)
    glass = _Glass(canvas, scene)
    _draw_room(canvas, scene)
    room = canvas.colour.copy()
    canvas.paint(WHITE, 0.07 * glass.mask)
    liquid_mask = _draw_liquid(canvas, scene, room, glass)
    _draw_glass(canvas, scene, room, glass)
    if scene.lemon:
        _draw_lemon(canvas, scene, glass)

    def shrink(values):
        values = values.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, -1).mean(axis=(1, 3))
        return torch.from_numpy(values.transpose(2, 0, 1).copy())

    return shrink(canvas.colour) * 2 - 1, shrink(liquid_mask), shrink(glass.mask)


class _Canvas:
    """An RGB picture to paint on. Its coordinates, 0 to 1, are a row x and a column y."""

    def __init__(self, pixels):
        centres = (np.arange(pixels, dtype=np.float32) + 0.5) / pixels
        self.x, self.y = centres[None, :], centres[:, None]
        self.pixel = 1 / pixels
        self.colour = np.zeros((pixels, pixels, 3), np.float32)

    def paint(self, colour, opacity):
        """Blend a colour into the picture, by `opacity` (pixels, pixels)."""
        self.colour += opacity[..., None].astype(np.float32) * (colour - self.colour)

    def cover(self, distance):
        """Signed distance to an edge (inside is negative) → share of the pixel covered."""
        return np.clip(0.5 - distance / self.pixel, 0, 1)

    def line(self, distance, width):
        """A line of this width along the edge; thinner than a pixel means fainter."""
        drawn = max(width, self.pixel)
        return self.cover(np.abs(distance) - drawn / 2) * (width / drawn)


def _ellipse(dx, dy, a):
    """Signed distance, to first order, to the ellipse that a level circle of radius a is seen as."""
    u, v = (dx / a) ** 2, (dy / (TILT * a)) ** 2
    k = np.sqrt(u + v + 1e-9)
    return k * (k - 1) / np.sqrt(u / a**2 + v / (TILT * a) ** 2 + 1e-9)


class _Glass:
    """The glass as geometry: a surface of revolution, seen from slightly above."""

    def __init__(self, canvas, scene):
        self.canvas, self.scene = canvas, scene
        self.radius = scene.radius * scene.height
        self.wall = 0.022 * scene.height
        self.is_tumbler = scene.glass == "tumbler"
        self.dx, self.dy = canvas.x - scene.x, canvas.y - scene.foot_y
        self.t = -self.dy / scene.height  # height above the foot; 1 is the rim
        self.distance, self.across = self.solid(0.0 if self.is_tumbler else 0.42, 1.0)
        if not self.is_tumbler:
            flare = 1 + 1.6 * np.abs(2 * self.t / 0.44 - 1).clip(0, 1) ** 4
            beyond = np.maximum(-self.t, self.t - 0.46) * scene.height
            stem = np.maximum(np.abs(self.dx) - 0.020 * scene.height * flare, beyond)
            foot = _ellipse(self.dx, self.dy, 0.62 * self.radius)
            self.distance = np.minimum.reduce([self.distance, stem, foot])
        self.mask = canvas.cover(self.distance)

    def half_width(self, t, thickness=0.0):
        """Half-width of the bowl at height t, inside a wall of this thickness."""
        if self.is_tumbler:
            profile = 0.80 + 0.20 * t
        else:
            u = ((t - 0.42) / 0.58).clip(0, 1)
            profile = np.sin(0.70 * math.pi * u**0.62) ** 0.72
        return np.maximum(profile * self.radius - thickness, 1e-3)

    def solid(self, low, high, thickness=0.0):
        """The bowl between two heights: its signed distance, and how far across it a pixel lies (±1: edges)."""
        r = self.half_width(self.t, thickness)
        rise = self.half_width(self.t + 1e-3, thickness) - self.half_width(self.t - 1e-3, thickness)
        lean = np.sqrt(1 + (rise / (2e-3 * self.scene.height)) ** 2)
        beyond = np.maximum(low - self.t, self.t - high) * self.scene.height
        distance = np.maximum((np.abs(self.dx) - r) / lean, beyond)
        ends = [self.level(height, thickness) for height in (low, high)]
        return np.minimum.reduce([distance, *ends]), self.dx / r

    def level(self, height, thickness=0.0):
        """Signed distance to the disc that a level cut through the bowl is."""
        radius = float(self.half_width(np.float32(height), thickness))
        return _ellipse(self.dx, self.dy + height * self.scene.height, radius)


def _draw_room(canvas, scene):
    """A wall with a gradient and a soft glow, a table, and the glass's shadow on it."""
    fade = (canvas.y / scene.table_y).clip(0, 1)[..., None]
    top, bottom = np.array(scene.background_top), np.array(scene.background_bottom)
    canvas.colour[:] = top + fade * (bottom - top)
    glow_x = np.exp(-((canvas.x - 0.5 - 0.45 * scene.light) ** 2) / 0.16)
    canvas.paint(WHITE, 0.16 * glow_x * np.exp(-((canvas.y - 0.1) ** 2) / 0.16))

    depth = ((canvas.y - scene.table_y) / (1 - scene.table_y)).clip(0, 1)[..., None]
    on_table = canvas.cover(scene.table_y - canvas.y)
    canvas.paint(np.array(scene.table) * (0.72 + 0.42 * depth), on_table)
    canvas.paint(WHITE, 0.22 * canvas.line(canvas.y - scene.table_y, 0.008))

    foot = scene.radius * scene.height * (0.8 if scene.glass == "tumbler" else 0.6)
    dx, dy = canvas.x - scene.x, canvas.y - scene.foot_y
    cast_x = np.exp(-(((dx + scene.light * 0.9 * foot) / (1.5 * foot)) ** 2))
    canvas.paint(BLACK, 0.45 * cast_x * np.exp(-((dy / (0.30 * foot)) ** 2)) * on_table)
    contact_x = np.exp(-((dx / (1.05 * foot)) ** 4))
    canvas.paint(BLACK, 0.75 * contact_x * np.exp(-((dy / (0.24 * foot)) ** 4)) * on_table)


def _draw_liquid(canvas, scene, room, glass):
    """Water shows the room behind it, upside down and a little blue; wine hides it. Returns the liquid's mask."""
    low = 0.09 if glass.is_tumbler else 0.455
    surface = low + scene.fill * (0.93 - low)
    distance, across = glass.solid(low, surface, glass.wall)
    mask, top = canvas.cover(distance), glass.level(surface, glass.wall)
    across = across.clip(-1, 1)[..., None]
    edge, lit = np.abs(across) ** 3, 1 + 0.10 * scene.light * across
    if scene.liquid == "water":
        through = 0.5 * room[::-1] + 0.5 * np.array(scene.background_top)
        colour = (through + 0.40 * (WATER - through)) * (1 - 0.22 * edge) * lit
        surface_colour, rim = colour + 0.45 * (WATER_SURFACE - colour), WHITE
    else:
        colour = (WINE + (0.20 + 0.55 * edge) * (WINE_THIN - WINE)) * lit + 0.06 * room
        surface_colour, rim = 0.92 * WINE_THIN + 0.08 * room, np.array([0.90, 0.45, 0.52])
    canvas.paint(colour.clip(0, 1), mask)
    canvas.paint(surface_colour.clip(0, 1), canvas.cover(top) * mask)
    canvas.paint(rim, 0.65 * canvas.line(top, 0.010) * (glass.t < surface) * mask)  # in front only
    return mask


def _draw_glass(canvas, scene, room, glass):
    """Edges are bright before something dark and dark before something bright."""
    brightness = room.mean(axis=2, keepdims=True)
    dark_edge = ((brightness - 0.42) / 0.12).clip(0, 1)
    edge = 0.93 + dark_edge * (0.42 * room - 0.93)
    canvas.paint(edge, 0.80 * canvas.line(glass.distance + 0.5 * glass.wall, 0.014))
    canvas.paint(edge, 0.85 * canvas.line(glass.level(1.0), 0.013) * glass.mask)

    low, high = (0.22, 0.86) if glass.is_tumbler else (0.62, 0.92)
    ends = ((glass.t - low) / 0.05).clip(0, 1) * ((high - glass.t) / 0.05).clip(0, 1)
    near = np.exp(-(((glass.across - 0.62 * scene.light) / 0.11) ** 2))
    far = np.exp(-(((glass.across + 0.74 * scene.light) / 0.06) ** 2))
    canvas.paint(WHITE, (0.75 * near + 0.30 * far) * scene.highlight * ends)


def _draw_lemon(canvas, scene, glass):
    """A slice of lemon, cut to its centre and put on the rim: a rind, pith, and eight wedges of flesh."""
    rim = float(glass.half_width(np.float32(1.0)))
    dx, dy = canvas.x - scene.x - scene.lemon * rim, canvas.y - scene.foot_y + scene.height
    distance, angle = np.hypot(dx, dy) - 0.10, np.arctan2(dy, dx)
    canvas.paint(RIND, canvas.cover(distance))
    canvas.paint(PITH, canvas.cover(distance + 0.016))
    wedges = canvas.cover(distance + 0.026) * (np.abs(np.sin(4 * angle)) > 0.25)
    canvas.paint(FLESH, wedges)


def to_image(picture):
    """Picture (3, H, W) or (1, H, W) in [-1, 1] → Pillow image, rounded to 8 bits."""
    pixels = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy())  # (H, W, 3), or (H, W)
