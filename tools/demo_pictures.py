#!/usr/bin/env python3
"""Draws the pictures of the demo shop: one flat illustration for each product.

    python3 -m venv .venv && .venv/bin/pip install pyvips==3.2.0 pyvips-binary==8.18.7
    .venv/bin/python tools/demo_pictures.py              every picture, into src/demo/pictures
    .venv/bin/python tools/demo_pictures.py lamp teapot  only those whose file name holds a word
    .venv/bin/python tools/demo_pictures.py --sheet F    and a contact sheet of what was drawn, as F
    .venv/bin/python tools/demo_pictures.py --svg DIR    and keep the drawings as SVG in DIR

Everything is drawn here, from nothing but shapes: no fonts, no photographs, no
outside material. The same script gives the same pictures: the only chance in it
is seeded with the file's name.

How it is made: each drawing is a function that paints on a `Canvas` of 960 x 960
units. The light always comes from the upper left; `Canvas.cel` gives any outline
its shaded side and its lit rim, so that all objects look alike. A standing object
is set on a `stage` (wall, shape, table), a small one on a `tray` (seen from above,
with a hard shadow). Colours come from `C` and `ROOM` alone. `PICTURES`, at the end,
says which file is drawn by what.
"""

import math
import random
import sys
from contextlib import contextmanager
from pathlib import Path

SIZE = 960
QUALITY = 74  # with the encoder's better tables and trellis, about what 82 is elsewhere

INK = "#2b2440"
C = dict(
    blue="#46769c", navy="#33476c", cream="#f1e3c8", moss="#7b8c5c", terracotta="#c96d4d",
    mustard="#dfa640", night="#343f5c", sage="#9bb193", coral="#e07a62", oat="#dcc8a6",
    rust="#b65a3d", slate="#62778a", pine="#426a58", sand="#d9bf95", red="#c64d43",
    forest="#3f6d52", zinc="#abb8bc", indigo="#414f86", ochre="#d69d42", fog="#9db1bf",
    wood="#cd9a66", walnut="#94653f", beech="#e2bb88", steel="#c6ced2", brass="#d3a74d",
    leaf="#6f9460", deep="#4f7a55", lemon="#f0c94f", white="#fdf8ee", iron="#454652",
    paper="#faf1de", tomato="#d2553f", coffee="#5b3a2b", tea="#b9743a", cork="#cfa573",
    lilac="#a597bd", pink="#e8a598",
)
# wall, shape on the wall, table
ROOM = dict(
    sand=("#f2e4cf", "#f9f0e1", "#dfc8a8"), blush=("#f3d8cb", "#f9e7dd", "#dfb29e"),
    mint=("#d3e3d5", "#e5efe3", "#adc9b3"), sky=("#d0e1e9", "#e4eff3", "#a5c4d1"),
    lilac=("#dfd8e8", "#eee9f2", "#bfb2cf"), butter=("#f6e2ab", "#fbf0cf", "#e2c47c"),
    peach=("#f8d6b5", "#fce8d1", "#e5b386"), night=("#36415f", "#44516f", "#293350"),
)


def mix(a, b, t):
    pa, pb = (tuple(int(c[i:i + 2], 16) for i in (1, 3, 5)) for c in (a, b))
    return "#%02x%02x%02x" % tuple(round(x + (y - x) * t) for x, y in zip(pa, pb))


def dark(c, t=.25):
    return mix(c, INK, t)


def light(c, t=.3):
    return mix(c, "#fff8ea", t)


def rr(x, y, w, h, r=0):
    r = min(r, w / 2, h / 2)
    return (f"M{x+r} {y}H{x+w-r}A{r} {r} 0 0 1 {x+w} {y+r}V{y+h-r}A{r} {r} 0 0 1 {x+w-r} {y+h}"
            f"H{x+r}A{r} {r} 0 0 1 {x} {y+h-r}V{y+r}A{r} {r} 0 0 1 {x+r} {y}Z")


def el(cx, cy, rx, ry=None):
    ry = rx if ry is None else ry
    return f"M{cx-rx} {cy}A{rx} {ry} 0 1 1 {cx+rx} {cy}A{rx} {ry} 0 1 1 {cx-rx} {cy}Z"


def pt(cx, cy, r, deg):
    a = math.radians(deg)
    return cx + r * math.sin(a), cy - r * math.cos(a)


class Canvas:
    def __init__(self, name):
        self.out, self.n, self.rnd = [], 0, random.Random(name)

    def uid(self):
        self.n += 1
        return f"i{self.n}"

    def add(self, s):
        self.out.append(s)

    def path(self, d, fill="none", op=1, rule=None):
        self.add(f'<path d="{d}" fill="{fill}" opacity="{op}"' + (f' fill-rule="{rule}"' if rule else "") + "/>")

    def line(self, d, colour, w, op=1, cap="round", dash=None):
        self.add(f'<path d="{d}" fill="none" stroke="{colour}" stroke-width="{w}" stroke-linecap="{cap}" '
                 f'stroke-linejoin="round" opacity="{op}"' + (f' stroke-dasharray="{dash}"' if dash else "") + "/>")

    def tube(self, d, colour, w, cap="round"):
        """A bent rod: dark line, the colour a little up and left, a thin light on it."""
        self.line(d, dark(colour, .22), w, cap=cap)
        with self.at(f"translate({-w*.07:.1f} {-w*.05:.1f})"):
            self.line(d, colour, w * .82, cap=cap)
        with self.at(f"translate({-w*.2:.1f} {-w*.17:.1f})"):
            self.line(d, light(colour, .35), w * .14, op=.8, cap=cap)

    def ell(self, cx, cy, rx, ry, fill, op=1):
        self.path(el(cx, cy, rx, ry), fill, op)

    def dot(self, cx, cy, r, fill, op=1):
        self.path(el(cx, cy, r), fill, op)

    def cel(self, d, fill, dx=-30, dy=-8, k=.2, hx=9, hy=6, rim=.35):
        """An outline with its shaded side (right, below) and its lit rim (left, above)."""
        far = "M-2000-2000H3000V3000H-2000Z"
        self.path(d, fill)
        with self.clip(d):
            self.add(f'<path d="{far}{d}" transform="translate({dx} {dy})" fill="{dark(fill, k)}" fill-rule="evenodd"/>')
            if rim:
                self.add(f'<path d="{far}{d}" transform="translate({hx} {hy})" fill="{light(fill, rim)}" fill-rule="evenodd"/>')

    @contextmanager
    def clip(self, d):
        i = self.uid()
        self.add(f'<clipPath id="{i}"><path d="{d}"/></clipPath><g clip-path="url(#{i})">')
        yield
        self.add("</g>")

    @contextmanager
    def at(self, transform="", op=1):
        self.add(f'<g transform="{transform}" opacity="{op}">')
        yield
        self.add("</g>")

    @contextmanager
    def lay(self, transform="", dx=16, dy=20, op=.2):
        """Things that lie on the tray: they throw one hard shadow."""
        i = self.uid()
        self.add(f'<filter id="{i}" x="0" y="0" width="960" height="960" filterUnits="userSpaceOnUse">'
                 f'<feDropShadow dx="{dx}" dy="{dy}" stdDeviation="1.2" flood-color="{INK}" flood-opacity="{op}"/></filter>'
                 f'<g filter="url(#{i})"><g transform="{transform}">')
        yield
        self.add("</g></g>")

    @contextmanager
    def glow(self, cx, cy, r, colour, op=.9):
        yield
        i = self.uid()
        self.add(f'<radialGradient id="{i}" gradientUnits="userSpaceOnUse" cx="{cx}" cy="{cy}" r="{r}">'
                 f'<stop offset="0" stop-color="{colour}" stop-opacity="{op}"/>'
                 f'<stop offset="1" stop-color="{colour}" stop-opacity="0"/></radialGradient>'
                 f'<circle cx="{cx}" cy="{cy}" r="{r}" fill="url(#{i})"/>')

    def svg(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIZE}" height="{SIZE}" viewBox="0 0 960 960">'
                + "".join(self.out) + "</svg>")

    # --- the rooms -------------------------------------------------------------------------

    def grad(self, top, bottom):
        i = self.uid()
        self.add(f'<linearGradient id="{i}" x1="0" y1="0" x2="0" y2="1"><stop offset="0" stop-color="{top}"/>'
                 f'<stop offset="1" stop-color="{bottom}"/></linearGradient>')
        return f"url(#{i})"

    def stage(self, room, shape="circle", horizon=690):
        wall, form, table = ROOM[room]
        self.path("M0 0H960V960H0Z", self.grad(wall, mix(wall, form, .35)))
        if shape == "circle":
            self.dot(480, 440, 352, form)
        elif shape == "arch":
            self.path("M170 960V420A310 310 0 0 1 790 420V960Z", form)
        elif shape == "window":
            self.path(rr(560, 90, 300, 420, 10), form)
            self.line("M710 90V510M560 290H860", wall, 14, cap="butt")
            self.path(rr(535, 505, 350, 24, 8), mix(wall, table, .6))
        elif shape == "hills":
            if room != "night":
                self.dot(700, 270, 96, mix(form, C["lemon"], .25))
            self.path("M0 640C160 470 330 470 480 590C620 470 800 430 960 560V960H0Z", mix(wall, table, .45))
            self.path("M0 690C200 560 420 600 600 660C740 600 860 600 960 650V960H0Z", mix(wall, table, .75))
        elif shape == "panels":
            for x in range(-20, 960, 140):
                self.path(rr(x, -20, 124, 760, 0), form, .55)
        self.path(f"M0 {horizon}H960V960H0Z", self.grad(table, mix(table, wall, .2)))
        self.path(f"M0 {horizon}H960V{horizon+8}H0Z", light(table, .35), .2 if room == "night" else .8)

    def wall(self, room, rail=None):
        """A wall without a table, and a rail with pegs at this height."""
        wall, form, table = ROOM[room]
        self.path("M0 0H960V960H0Z", self.grad(wall, mix(wall, form, .5)))
        self.dot(480, 520, 360, form)
        if rail:
            self.path(rr(-20, rail + 10, 1000, 62, 0), INK, .1)
            self.path(rr(-20, rail, 1000, 60, 0), C["beech"])
            self.path(rr(-20, rail, 1000, 8, 0), light(C["beech"], .5))
            self.path(rr(-20, rail + 48, 1000, 12, 0), dark(C["beech"], .15))

    def peg(self, x, y):
        self.ell(x + 8, y + 12, 22, 22, INK, .18)
        self.cel(el(x, y, 21), C["walnut"], -8, -6)

    def tray(self, room, shape="circle"):
        wall, form, table = ROOM[room]
        self.path("M0 0H960V960H0Z", self.grad(wall, mix(wall, table, .18)))
        if shape == "circle":
            self.dot(480, 480, 388, form)
        elif shape == "cloth":
            with self.at("rotate(-8 480 480)"):
                self.path(rr(130, 90, 700, 780, 10), form)
                self.line("M170 90V870M190 90V870M770 90V870M790 90V870", mix(form, table, .55), 6)
                self.line("M130 130H830M130 830H830", mix(form, table, .3), 4)
        elif shape == "band":
            with self.at("rotate(-32 480 480)"):
                self.path(rr(-300, 250, 1560, 460, 0), form)
        elif shape == "board":
            self.path(rr(96, 96, 768, 768, 60), form)
            self.line(rr(122, 122, 716, 716, 44), mix(form, table, .35), 4)

    def shadow(self, cx, cy, rx, ry=None, op=.17):
        ry = rx * .15 if ry is None else ry
        self.ell(cx + rx * .14, cy + 2, rx * 1.06, ry, INK, op)

    # --- small things that stand around ----------------------------------------------------

    def steam(self, x, y, s=1.0, colour="#ffffff", op=.65):
        with self.at(f"translate({x} {y}) scale({s})"):
            self.line("M-34 0C-64 -46 -6 -76 -34 -130", colour, 12, op)
            self.line("M14 -10C-20 -66 48 -106 14 -172", colour, 12, op)
            self.line("M60 0C34 -42 86 -74 60 -118", colour, 12, op)

    def leaf(self, x, y, length, deg, colour, w=.36):
        with self.at(f"translate({x} {y}) rotate({deg})"):
            h, b = -length, length * w
            self.path(f"M0 0C{-b} {h*.3} {-b*.9} {h*.75} 0 {h}C{b*.9} {h*.75} {b} {h*.3} 0 0Z", colour)
            self.path(f"M0 0C{b} {h*.3} {b*.9} {h*.75} 0 {h}Z", dark(colour, .16))
            self.line(f"M0 0V{h*.8}", light(colour, .3), max(2, length * .025), .7)

    def sprig(self, x, y, deg=0, s=1.0, colour=None, n=4):
        colour = colour or C["leaf"]
        with self.at(f"translate({x} {y}) rotate({deg}) scale({s})"):
            self.line(f"M0 0C6 -60 -6 -120 0 {-n*46}", dark(colour, .25), 6)
            for i in range(n):
                yy = -30 - i * 44
                self.leaf(0, yy, 66 - i * 5, -58, colour)
                self.leaf(0, yy - 16, 66 - i * 5, 58, colour)
            self.leaf(0, -n * 46 + 4, 56, 0, colour)

    def lemon(self, x, y, r=44):
        self.shadow(x, y + r * .8, r)
        self.cel(f"M{x-r*1.25} {y}C{x-r} {y-r*.3} {x-r*.8} {y-r*.85} {x} {y-r*.85}C{x+r*.8} {y-r*.85} {x+r} {y-r*.3} {x+r*1.25} {y}"
                 f"C{x+r} {y+r*.3} {x+r*.8} {y+r*.85} {x} {y+r*.85}C{x-r*.8} {y+r*.85} {x-r} {y+r*.3} {x-r*1.25} {y}Z", C["lemon"], -12, -10)

    def lemon_half(self, x, y, r=46):
        self.dot(x, y, r, C["lemon"])
        self.dot(x, y, r * .86, "#fdf3cc")
        for i in range(8):
            a, b = pt(x, y, r * .74, i * 45 - 17), pt(x, y, r * .74, i * 45 + 17)
            m = pt(x, y, r * .16, i * 45)
            self.path(f"M{m[0]:.1f} {m[1]:.1f}L{a[0]:.1f} {a[1]:.1f}A{r*.74} {r*.74} 0 0 1 {b[0]:.1f} {b[1]:.1f}Z", "#f4d569")

    def book(self, x, y, w, h, colour, band=None):
        self.cel(rr(x, y, w, h, 5), colour, -10, 0)
        for t in (.12, .84):
            self.path(rr(x, y + h * t, w, max(4, h * .025), 0), band or light(colour, .5), .9)

    def pencil(self, x, y, length, deg, colour, w=26):
        """Its point at (x, y), its body in the direction of deg (0 is down)."""
        with self.at(f"translate({x} {y}) rotate({deg})"):
            self.path(f"M0 0L{-w/2} {w*1.7}H{w/2}Z", C["beech"])
            self.path(f"M0 0L{-w*.16} {w*.55}H{w*.16}Z", colour)
            e = length - w * 1.2
            self.path(rr(-w / 2, w * 1.7, w, e - w * 1.7, 0), colour)
            self.path(rr(-w / 2, w * 1.7, w * .3, e - w * 1.7, 0), light(colour, .3))
            self.path(rr(w * .2, w * 1.7, w * .3, e - w * 1.7, 0), dark(colour, .2))
            self.path(rr(-w / 2, e, w, w * .5, 0), C["brass"])
            self.path(rr(-w / 2, e + w * .5, w, w * .7, 6), C["pink"])

    def grain(self, lines, colour, w=4, op=.5):
        for d in lines:
            self.line(d, colour, w, op)


# === kitchen ===================================================================================

def teapot_body(c, col):
    c.line("M352 452C330 170 630 170 608 452", dark(C["wood"], .3), 34)
    c.line("M350 450C328 170 628 170 606 450", C["wood"], 26)
    c.line("M346 440C330 176 600 170 602 420", light(C["wood"], .4), 6, .8)
    c.cel("M640 610C716 600 712 470 786 418L826 446C778 500 768 664 636 690Z", col, -14, -12)
    c.cel("M276 574C276 452 372 404 480 404C588 404 684 452 684 574C684 678 612 748 480 748C348 748 276 678 276 574Z",
          col, -46, -14, hx=12, hy=8)
    with c.clip("M276 574C276 452 372 404 480 404C588 404 684 452 684 574C684 678 612 748 480 748C348 748 276 678 276 574Z"):
        c.path("M200 690C320 712 360 684 440 702C540 722 620 684 760 700V800H200Z", C["oat"])
        c.path("M560 706C620 694 680 690 760 700V800H500C540 770 556 740 560 706Z", dark(C["oat"], .16))
        for _ in range(30):
            c.dot(c.rnd.randint(290, 670), c.rnd.randint(420, 690), c.rnd.choice((2, 3, 4)), dark(col, .3), .45)
    c.path("M318 556C322 500 352 464 396 448C362 480 346 520 344 566C342 590 318 586 318 556Z", light(col, .55), .75)
    for x in (352, 608):
        c.dot(x, 454, 16, dark(C["brass"], .2))
        c.dot(x - 3, 451, 12, C["brass"])
    c.cel("M364 420C372 372 588 372 596 420C560 440 400 440 364 420Z", col, -16, -6, hx=6, hy=5)
    c.cel(el(480, 366, 27, 24), C["wood"], -8, -6, hx=4, hy=4)


def teapot(c, col, room):
    c.stage(room)
    c.shadow(480, 748, 240)
    teapot_body(c, col)
    c.lemon(742, 772, 42)
    c.shadow(826, 808, 52)
    c.lemon_half(822, 778, 44)


def teapot_pour(c, col, room):
    c.stage(room, "arch", 720)
    c.shadow(720, 836, 120)
    cup = "M600 690H846C846 776 806 836 724 836C640 836 600 776 600 690Z"
    c.line("M838 716C902 706 902 790 822 782", dark(col, .2), 24)
    c.line("M836 714C898 706 896 786 822 780", col, 18)
    c.line("M702 400C722 520 724 610 724 706", C["tea"], 17)
    c.line("M698 400C716 520 718 610 718 706", light(C["tea"], .4), 4)
    c.cel(cup, col, -26, -6)
    c.ell(723, 690, 123, 25, light(col, .3))
    c.ell(723, 693, 107, 19, dark(C["tea"], .15))
    c.ell(716, 696, 84, 12, C["tea"])
    c.line("M710 420C721 520 722 610 722 694", C["tea"], 14)
    c.line("M705 410C717 520 718 610 718 692", light(C["tea"], .4), 4)
    c.steam(640, 650, .7)
    with c.at("translate(-60 -105) rotate(30 480 520) scale(.86)"):
        teapot_body(c, col)


def mug(c, col, room, shape="arch"):
    c.stage(room, shape)
    c.shadow(475, 748, 160)
    c.line("M596 492C734 462 734 668 590 646", dark(col, .24), 44)
    c.line("M594 490C726 464 724 662 590 642", col, 35)
    c.line("M620 480C690 476 704 520 698 566", light(col, .4), 7, .8)
    d = "M314 424H626L610 690Q606 750 548 750H392Q334 750 330 690Z"
    c.cel(d, col, -44, 0, hx=12, hy=0)
    with c.clip(d):
        c.path("M300 640C360 664 420 630 480 652C540 672 590 640 660 656V780H300Z", C["oat"])
        c.path("M566 656C600 650 630 650 660 656V780H546C560 740 564 700 566 656Z", dark(C["oat"], .17))
        for _ in range(26):
            c.dot(c.rnd.randint(320, 620), c.rnd.randint(460, 640), c.rnd.choice((2, 3, 4)), dark(col, .35), .4)
    c.path(rr(346, 480, 20, 150, 10), light(col, .6), .6)
    c.ell(470, 424, 156, 33, light(col, .35))
    c.ell(470, 427, 139, 26, dark(col, .4))
    c.ell(470, 434, 128, 19, C["coffee"])
    c.ell(448, 432, 70, 8, light(C["coffee"], .25))
    c.steam(458, 392, 1.15)


def mug_top(c, col, room):
    c.tray(room, "cloth")
    with c.lay(dx=22, dy=26):
        c.dot(470, 500, 250, C["oat"])
    c.dot(470, 500, 236, light(C["oat"], .3))
    c.dot(470, 500, 196, C["oat"])
    with c.lay(dx=24, dy=28, op=.25):
        c.line("M590 400L692 298", col, 46)
        c.dot(470, 500, 168, col)
    c.line("M596 388L686 298", light(col, .3), 9)
    c.cel(el(470, 500, 168), col, -10, -10, hx=8, hy=8)
    c.dot(470, 500, 148, dark(col, .38))
    c.dot(476, 508, 138, C["coffee"])
    c.dot(470, 502, 118, mix(C["coffee"], C["tea"], .45))
    with c.at("translate(470 512)"):
        cream = "#f3dfba"
        c.path("M0 92C-96 40 -112 -24 -70 -56C-36 -80 -8 -58 0 -34C8 -58 36 -80 70 -56C112 -24 96 40 0 92Z", cream)
        for s in (.72, .46):
            c.line(f"M0 {70*s+14:.0f}C{-82*s:.0f} {34*s:.0f} {-92*s:.0f} {-20*s:.0f} {-58*s:.0f} {-46*s:.0f}"
                   f"M0 {70*s+14:.0f}C{82*s:.0f} {34*s:.0f} {92*s:.0f} {-20*s:.0f} {58*s:.0f} {-46*s:.0f}", C["tea"], 7, .7)
    with c.lay("translate(790 700) rotate(24)"):
        c.cel(rr(-14, -250, 28, 210, 14), C["brass"], -6, 0)
        c.cel(el(0, 0, 36, 58), C["brass"], -8, -8)
        c.ell(2, 4, 24, 42, dark(C["brass"], .2))
    for x, y, a in ((186, 756, 20), (236, 806, 80), (168, 830, -40)):
        with c.lay(f"translate({x} {y}) rotate({a})", 6, 8):
            c.ell(0, 0, 21, 15, C["coffee"])
            c.line("M-17 0C-6 7 6 -7 17 0", dark(C["coffee"], .45), 4)


def dripper(c, room, steaming=False):
    c.stage(room, "circle")
    c.shadow(480, 792, 190)
    body = "M366 520H594C600 590 670 640 670 716C670 772 630 792 580 792H380C330 792 290 772 290 716C290 640 360 590 366 520Z"
    c.line("M640 596C760 570 760 720 664 712", dark(C["wood"], .25), 28)
    c.line("M638 594C752 570 752 714 662 708", C["wood"], 20)
    c.path(body, "#ffffff", .55)
    with c.clip(body):
        c.path("M200 664H760V820H200Z", C["coffee"])
        c.path("M600 664H760V820H540C590 780 604 720 600 664Z", dark(C["coffee"], .3))
        c.ell(480, 664, 180, 18, mix(C["coffee"], C["tea"], .5))
        c.path("M620 500H700V820H600C650 760 640 640 600 560Z", INK, .08)
    c.line("M330 640C344 610 362 590 376 560", "#ffffff", 14, .85)
    c.line("M318 690C318 684 319 676 321 668", "#ffffff", 14, .85)
    c.cel(rr(352, 500, 256, 34, 12), C["wood"], -22, -4, hx=6, hy=5)
    cream = C["cream"]
    c.line("M636 352C728 340 716 446 590 424", dark(cream, .22), 30)
    c.line("M634 350C720 340 706 438 588 420", cream, 22)
    c.path("M332 306L366 258C400 240 560 240 594 258L628 306Z", "#e9d8b6")
    c.path("M348 300L372 262C420 248 540 248 588 262L612 300Z", dark("#e9d8b6", .14))
    c.ell(480, 306, 124, 22, C["coffee"])
    c.cel("M312 306C380 330 580 330 648 306L556 474H404Z", cream, -46, 0, hx=14, hy=3)
    for x, b in ((400, 434), (440, 455), (520, 508), (560, 532)):
        c.line(f"M{x} 344L{b} 456", dark(cream, .12), 6, .8)
    c.cel(rr(376, 470, 208, 30, 14), cream, -22, -3)
    if steaming:
        c.line("M480 536V650", C["coffee"], 9)
        c.ell(480, 664, 44, 7, light(C["tea"], .2))
        c.steam(468, 236, 1.0)
        c.line("M560 -20C540 80 500 170 484 292", "#dcecf1", 20)
        c.line("M554 -20C534 80 494 170 478 292", "#ffffff", 6)
    else:
        for x, y, a in ((756, 800, 20), (800, 826, -30), (170, 806, 60), (726, 838, 80)):
            with c.at(f"translate({x} {y}) rotate({a})"):
                c.ell(5, 8, 20, 12, INK, .15)
                c.ell(0, 0, 20, 14, C["coffee"])
                c.line("M-16 0C-6 7 6 -7 16 0", dark(C["coffee"], .5), 4)


def board(c, room, large):
    c.stage(room, "panels", 700)
    w, h = (430, 600) if large else (320, 440)
    x, y = 480 - w / 2 - 40, 772 - h
    d = (f"M{x+40} {y+110}H{480-40-58}C{480-40-50} {y+90} {480-40-52} {y+60} {480-40-48} {y+20}C{480-40-44} {y-40} {480-40+44} {y-40} {480-40+48} {y+20}"
         f"C{480-40+52} {y+60} {480-40+50} {y+90} {480-40+58} {y+110}H{x+w-40}A40 40 0 0 1 {x+w} {y+150}V772H{x}V{y+150}A40 40 0 0 1 {x+40} {y+110}Z")
    with c.at("translate(34 10)"):
        c.path(d, INK, .12)
    c.shadow(450, 774, w * .55, 24)
    c.cel(d, C["wood"], -20, -6, k=.22, hx=8, hy=6)
    with c.clip(d):
        for i in range(9):
            gx = x + w * (i + .6) / 9
            b = c.rnd.randint(-16, 16)
            c.line(f"M{gx} {y-60}C{gx+b} {y+160} {gx-b} {y+h*.6} {gx+b*.6} 780", dark(C["wood"], .22), 4, .45)
        c.line(f"M{x+w*.3} {y+h*.62}c26 -60 60 -60 74 0c-10 66 -60 66 -74 0", dark(C["wood"], .25), 4, .5)
    c.dot(440, y + 22, 25, dark(C["wood"], .5))
    c.dot(443, y + 25, 20, ROOM[room][0])
    if large:
        c.shadow(668, 800, 160, 26)
        loaf = "M500 760C490 680 560 640 670 640C790 640 850 690 836 764C830 804 790 806 668 806C550 806 508 806 500 760Z"
        c.cel(loaf, "#c98a4b", -26, -18, hx=10, hy=10)
        for i in range(4):
            with c.at(f"translate({570+i*66} 664) rotate(20)"):
                c.path("M0 0C26 16 30 62 8 96C-20 70 -22 24 0 0Z", "#efd3a0")
    else:
        c.lemon(640, 770, 52)
        c.shadow(742, 806, 60)
        c.lemon_half(736, 772, 52)


def ramekin(c, cx, cy, s, spooned=False):
    with c.at(f"translate({cx} {cy}) scale({s})"):
        c.shadow(0, 104, 190, 30)
        white = C["cream"]
        c.cel("M-200 0C-196 60 -180 110 -160 118C-60 138 60 138 160 118C180 110 196 60 200 0Z", white, -30, 0)
        for i in range(-8, 9):
            a = i / 9
            c.line(f"M{200*math.sin(a*1.5):.0f} {40*math.cos(a*1.5):.0f}L{166*math.sin(a*1.5):.0f} {88+36*math.cos(a*1.5):.0f}", dark(white, .16), 5, .7)
        c.ell(0, 0, 206, 56, light(white, .5))
        c.ell(0, 0, 186, 46, dark(white, .2))
        c.ell(0, 5, 178, 41, "#b9692c")
        c.ell(-6, 3, 166, 35, "#d08a3c")
        with c.clip(el(-6, 3, 166, 35)):
            c.path("M-160 -10C-100 -40 -40 10 20 -20C80 -44 120 -10 60 10C0 26 -60 4 -160 -10Z", "#a95b26", .75)
            c.path("M20 40C60 10 120 30 180 4V60H20Z", "#a95b26", .6)
            c.path("M-110 -14C-80 -26 -50 -22 -30 -14C-60 -6 -90 -4 -110 -14Z", "#f0bc6e", .8)
            if spooned:
                c.path("M16 -8L60 -24L110 -6L150 6L96 30L40 26Z", "#f8e6b0")
                c.path("M16 -8L60 -24L110 -6L92 0L54 -10L24 0Z", "#8d471c")


def creme(c, room):
    c.stage(room, "circle", 560)
    ramekin(c, 606, 470, 1.0)
    ramekin(c, 400, 650, 1.34, True)
    c.shadow(780, 806, 70, 12)
    for x, y in ((760, 790), (806, 800), (784, 764)):
        c.cel(el(x, y, 24), "#5a5f9a", -6, -5)
        c.dot(x - 6, y - 8, 5, "#a9addb")


def spoons(c, room):
    c.tray(room, "circle")
    b, w, m = C["beech"], C["wood"], mix(C["beech"], C["wood"], .5)
    with c.lay("rotate(-14 300 480)"):
        c.cel(rr(278, 390, 36, 470, 18), b, -9, 0)
        c.cel("M296 110C366 110 384 210 372 290C362 370 330 410 296 410C262 410 230 370 220 290C208 210 226 110 296 110Z", b, -12, -8)
        c.path("M296 142C340 142 356 220 346 286C338 344 318 374 296 374C274 374 254 344 246 286C236 220 252 142 296 142Z", dark(b, .2))
        c.path("M306 150C344 160 354 226 346 286C338 344 322 370 302 374C322 320 328 220 306 150Z", dark(b, .08))
    with c.lay():
        c.cel(rr(466, 400, 36, 460, 18), m, -9, 0)
        c.cel("M420 120Q484 90 548 120L534 380Q526 430 484 430Q442 430 434 380Z", m, -12, -6)
        for x in (456, 484, 512):
            c.line(f"M{x} 190V340", dark(ROOM[room][1], .22), 13)
            c.line(f"M{x+3} 194V340", ROOM[room][1], 9)
    with c.lay("rotate(14 670 480)"):
        c.cel(rr(652, 380, 36, 480, 18), w, -9, 0)
        c.cel("M590 110H660C740 130 768 250 740 330C724 376 700 404 670 404C634 404 612 370 606 330Z", w, -12, -6)
        c.grain(["M630 140C640 220 634 300 650 380", "M664 140C684 220 676 300 676 390", "M700 170C720 240 704 310 694 370"], dark(w, .25), 4)


def skillet(c, room):
    c.tray(room, "cloth")
    iron = C["iron"]
    with c.lay("rotate(38 420 520)", 24, 28, .26):
        c.path("M396 250L384 60Q382 -24 420 -24Q458 -24 456 60L444 250Z", iron)
        c.line("M420 26V46", ROOM[room][1], 26)
        c.line("M404 236L398 96", light(iron, .3), 8, .7)
        c.dot(420, 520, 288, iron)
    c.cel(el(420, 520, 288), iron, -8, -8, rim=.25)
    c.dot(420, 520, 258, dark(iron, .45))
    c.dot(428, 528, 248, dark(iron, .25))
    white = "M300 420C340 350 440 400 490 370C560 340 620 420 580 480C560 520 600 580 560 630C520 690 450 640 400 670C340 700 270 650 280 590C286 550 250 500 300 420Z"
    with c.at("translate(8 10)"):
        c.path(white, INK, .3)
    c.cel(white, C["white"], -10, -10, k=.12)
    for x, y in ((372, 498), (490, 560)):
        c.cel(el(x, y, 56), "#f0ab35", -10, -10, hx=6, hy=6)
        c.ell(x - 20, y - 22, 13, 9, "#fbe0a0")
    for i in range(26):
        a, r = c.rnd.random() * 360, 60 + c.rnd.random() * 170
        x, y = pt(425, 525, r, a)
        with c.at(f"translate({x:.0f} {y:.0f}) rotate({c.rnd.randint(0, 180)})"):
            c.path(rr(-8, -3, 16, 6, 3), C["leaf"]) if i % 2 else c.dot(0, 0, 3.4, "#d9cfc0")
    with c.lay("translate(800 790) rotate(-30)"):
        c.sprig(0, 0, 0, .9)


def jar(c, room, large):
    c.stage(room, "window", 690)
    x, w, top = (330, 300, 300) if large else (345, 270, 440)
    y = 780
    c.shadow(480, y, w * .56)
    d = f"M{x+30} {top}H{x+w-30}C{x+w-26} {top+30} {x+w} {top+40} {x+w} {top+80}V{y-40}Q{x+w} {y} {x+w-40} {y}H{x+40}Q{x} {y} {x} {y-40}V{top+80}C{x} {top+40} {x+26} {top+30} {x+30} {top}Z"
    c.path(d, "#f4fafa", .75)
    inner = f"M{x+16} {top+130}Q{480} {top+110} {x+w-16} {top+136}V{y-44}Q{x+w-16} {y-18} {x+w-44} {y-18}H{x+44}Q{x+16} {y-18} {x+16} {y-44}Z"
    with c.clip(inner):
        if large:
            c.path(rr(x, top, w, y - top, 0), "#e6bd6a")
            yy = top + 120
            while yy < y:
                xx = x + 10
                while xx < x + w:
                    with c.at(f"translate({xx+c.rnd.randint(-8, 8)} {yy+c.rnd.randint(-6, 6)}) rotate({c.rnd.randint(0, 170)})"):
                        col = c.rnd.choice(("#f0cd80", "#e9c06c", "#f5d892"))
                        c.path("M-30 -14C-16 -4 -16 4 -30 14L0 8L30 14C16 4 16 -4 30 -14L0 -8Z", dark("#d9a94e", .2))
                        c.path("M-28 -16C-14 -6 -14 2 -28 12L0 6L28 12C14 2 14 -6 28 -16L0 -10Z", col)
                    xx += 50
                yy += 34
        else:
            c.path(rr(x, top, w, y - top, 0), "#a04a3d")
            for yy in range(top + 115, y, 21):
                for xx in range(x, x + w + 20, 30):
                    with c.at(f"translate({xx+c.rnd.randint(-6, 6)} {yy+c.rnd.randint(-4, 4)}) rotate({c.rnd.randint(-60, 60)})"):
                        col = c.rnd.choice(("#b5574a", "#c4695a", "#a84e42", "#d98a74"))
                        c.ell(2, 3, 17, 11, "#7b342d")
                        c.ell(0, 0, 17, 11, col)
                        c.ell(-5, -4, 5, 2.6, light(col, .5))
        c.path(f"M{x+w-60} {top}H{x+w}V{y}H{x+w-80}Z", INK, .13)
    c.line(d, "#ffffff", 7, .8)
    c.path(rr(x + 30, top + 96, 18, (y - top) * .5, 9), "#ffffff", .7)
    c.path(rr(x + 30, top + 112 + (y - top) * .5, 18, 26, 9), "#ffffff", .7)
    c.line(f"M{x+26} {top+10}H{x+w-26}", "#cfdcdc", 12, .8)
    c.cel(rr(x + 16, top - 66, w - 32, 70, 14), C["cork"], -24, -5, hx=7, hy=6)
    for _ in range(26):
        c.dot(x + 34 + c.rnd.random() * (w - 70), top - 56 + c.rnd.random() * 50, c.rnd.choice((2, 3, 4)), dark(C["cork"], .35), .5)
    ly = top + 190 if large else top + 150
    c.path(rr(400, ly, 160, 88, 8), C["paper"])
    c.line(rr(409, ly + 9, 142, 70, 4), dark(C["oat"], .2), 3)
    c.line(f"M436 {ly+34}H524M452 {ly+56}H508", dark(C["oat"], .5), 6)


def mill(c, room):
    c.stage(room, "circle")
    c.shadow(480, 800, 130)
    w = C["walnut"]
    c.cel("M372 800C372 760 386 740 392 700C402 640 426 600 428 540C430 500 414 470 410 430H550C546 470 530 500 532 540C534 600 558 640 568 700C574 740 588 760 588 800Q480 826 372 800Z", w, -40, 0, hx=12, hy=3)
    c.path("M378 766H582L586 788Q480 812 374 788Z", dark(w, .35), .7)
    c.line("M434 560H526", dark(w, .4), 7, .7)
    c.line("M424 650C414 684 408 700 406 736", light(w, .5), 10, .7)
    c.path(rr(406, 412, 148, 22, 6), C["steel"])
    c.path(rr(500, 412, 54, 22, 6), dark(C["steel"], .3))
    c.cel("M404 412C376 350 400 268 480 268C560 268 584 350 556 412Q480 424 404 412Z", w, -34, -10, hx=10, hy=8)
    c.ell(440, 322, 14, 26, light(w, .5), .7)
    c.cel(el(480, 250, 26, 24), C["steel"], -8, -5)
    for x, y in ((650, 790), (690, 812), (722, 782), (262, 812), (672, 836), (296, 790)):
        c.ell(x + 5, y + 8, 14, 6, INK, .2)
        c.cel(el(x, y, 12), "#4a3d3f", -4, -4, hx=3, hy=3)


# === garden ====================================================================================

def can_body(c, col):
    c.line("M350 470C250 330 560 250 590 500", dark(col, .32), 34)
    c.line("M348 468C252 332 552 256 586 500", col, 24)
    c.line("M322 400C350 336 450 316 510 350", light(col, .45), 6, .8)
    c.line("M640 470C760 460 760 690 640 680", dark(col, .32), 30)
    c.line("M638 468C752 460 752 684 638 676", col, 21)
    c.cel("M352 610L196 392L232 366L372 540Z", col, -8, -10)
    c.cel("M150 408L262 330C244 300 226 290 206 302L142 346C124 360 130 384 150 408Z", light(col, .12), -8, -10)
    c.line("M154 402L256 332", dark(col, .4), 6, .6)
    for t in range(4):
        c.dot(172 + t * 22, 372 - t * 15, 4, dark(col, .55))
    d = "M338 480H652L668 760Q496 792 322 760Z"
    c.cel(d, col, -56, 0, hx=16, hy=0)
    for y in (540, 706):
        c.line(f"M{334-(y-480)*.06:.0f} {y}Q496 {y+28} {656+(y-480)*.06:.0f} {y}", dark(col, .3), 9, .6)
        c.line(f"M{334-(y-480)*.06:.0f} {y-8}Q496 {y+20} {656+(y-480)*.06:.0f} {y-8}", light(col, .4), 4, .7)
    c.path(rr(372, 570, 22, 110, 11), light(col, .6), .6)
    c.ell(495, 480, 157, 36, light(col, .3))
    c.ell(495, 484, 142, 28, dark(col, .55))
    c.path("M495 452C590 452 640 466 652 480C640 500 590 512 530 515Z", dark(col, .1))


def can(c, col, room):
    c.stage(room, "arch")
    c.shadow(500, 770, 190)
    can_body(c, col)
    c.shadow(806, 792, 44, 9)
    c.sprig(800, 792, 8, .8, C["deep"], 3)


def can_pour(c, col, room):
    c.stage(room, "hills", 760)
    for x, f in ((150, C["coral"]), (300, C["lemon"])):
        c.line(f"M{x} 850V690", C["deep"], 10)
        c.leaf(x, 830, 90, -50, C["leaf"])
        c.leaf(x, 800, 84, 52, C["leaf"])
        for i in range(8):
            p = pt(x, 676, 38, i * 45)
            c.ell(p[0], p[1], 23, 23, f)
        c.dot(x, 676, 26, C["walnut"])
    c.path("M0 850Q200 826 420 850T960 840V960H0Z", C["walnut"])
    for k in range(5):
        x = 150 + k * 34
        c.line(f"M{x} {452-k*22}C{x-40} 560 {x-30+k*8} 660 {x-40+k*16} 780", "#ffffff", 6, .8, dash="26 22")
    with c.at("translate(70 -110) rotate(-16 480 520) scale(.92)"):
        can_body(c, col)


def pot_shape(c, cx, base, w, h, col=None):
    col = col or C["terracotta"]
    c.shadow(cx, base, w * .42, w * .06)
    rim = h * .26
    c.cel(f"M{cx-w*.42} {base-h+rim*.6}L{cx-w*.3} {base-10}Q{cx} {base+14} {cx+w*.3} {base-10}L{cx+w*.42} {base-h+rim*.6}Z", col, -w * .13, 0, hx=8, hy=0)
    c.path(f"M{cx-w*.42} {base-h+rim}H{cx+w*.42}L{cx+w*.41} {base-h+rim+14}Q{cx} {base-h+rim+34} {cx-w*.41} {base-h+rim+14}Z", INK, .18)
    c.cel(f"M{cx-w*.5} {base-h}H{cx+w*.5}L{cx+w*.47} {base-h+rim}Q{cx} {base-h+rim+26} {cx-w*.47} {base-h+rim}Z", col, -w * .13, 0, hx=8, hy=0)
    c.ell(cx, base - h, w * .5, w * .075, light(col, .3))
    c.ell(cx, base - h + 2, w * .45, w * .058, dark(C["walnut"], .45))


def succulent(c, cx, y, s):
    for ring, (n, r, col) in enumerate(((9, 92, "#6f9a86"), (8, 72, "#86ad95"), (6, 50, "#a1c2a6"), (4, 28, "#bcd6b5"))):
        for i in range(n):
            a = -100 + 200 * (i + .5) / n
            c.leaf(cx, y, r * s * 1.35, a, col, .42)
        y -= 8 * s


def basil(c, cx, y, s):
    for x, h, a in ((-70, 150, -22), (70, 150, 20), (-30, 210, -8), (36, 220, 8), (0, 250, 0)):
        with c.at(f"translate({cx+x*.35*s:.0f} {y}) rotate({a}) scale({s})"):
            c.line(f"M0 0V{-h}", C["deep"], 8)
            for k in range(2, int(h / 45) + 1):
                l = 92 - k * 6
                c.leaf(0, -k * 42, l, -64, C["leaf"], .5)
                c.leaf(0, -k * 42, l, 64, mix(C["leaf"], C["deep"], .4), .5)
            c.leaf(0, -h, 60, -16, light(C["leaf"], .15), .5)
            c.leaf(0, -h, 56, 22, C["leaf"], .5)


def olive(c, cx, y):
    c.tube(f"M{cx} {y}C{cx-8} {y-80} {cx+12} {y-140} {cx} {y-230}", C["walnut"], 22)
    for x, yy, r in ((-104, -280, 90), (100, -290, 92), (-50, -370, 100), (62, -384, 96), (0, -290, 110)):
        for i in range(17):
            a = c.rnd.random() * 360
            p = pt(cx + x, y + yy, r * c.rnd.random() ** .5, a)
            c.leaf(p[0], p[1], c.rnd.randint(48, 70), c.rnd.randint(-80, 80), c.rnd.choice(("#7d9a78", "#93ad8a", "#688868", "#a9be9c")), .26)
    for x, yy in ((-110, -260), (-30, -330), (80, -270), (40, -400), (130, -330), (-80, -390)):
        c.ell(cx + x, y + yy, 12, 16, "#4b5040")
        c.ell(cx + x - 4, y + yy - 5, 3, 5, "#8c927c")


def pot(c, size, room):
    c.stage(room, "window" if size == "S" else "circle", 700)
    if size == "S":
        with c.at("translate(450 800) scale(1.42) translate(-470 -776)"):
            succulent(c, 470, 584, 1.2)
            pot_shape(c, 470, 776, 250, 196)
    elif size == "M":
        pot_shape(c, 480, 790, 330, 270)
        basil(c, 480, 524, .98)
    else:
        with c.at("translate(480 850) scale(.9) translate(-480 -820)"):
            pot_shape(c, 480, 820, 380, 290)
            olive(c, 480, 536)


def pots(c, room):
    c.stage(room, "panels", 660)
    with c.at("translate(190 178) scale(.74)"):
        pot_shape(c, 640, 780, 400, 320)
        olive(c, 640, 466)
    with c.at("translate(-30 178) scale(.78)"):
        pot_shape(c, 410, 820, 330, 270)
        basil(c, 410, 554, .9)
    with c.at("translate(96 60)"):
        succulent(c, 430, 692, .8)
        pot_shape(c, 430, 814, 170, 130)


def trowel(c, room):
    c.tray(room, "circle")
    s = C["steel"]
    with c.lay("rotate(38 480 480)", 22, 24):
        c.tube("M480 520V400", dark(s, .2), 26)
        c.cel("M390 400C380 280 420 140 480 44C540 140 580 280 570 400C560 440 520 452 480 452C440 452 400 440 390 400Z", s, -24, 0, hx=10, hy=6)
        c.path("M480 96C512 180 528 280 520 392C508 412 494 418 480 418C466 418 452 412 440 392C432 280 448 180 480 96Z", dark(s, .16))
        c.path("M480 96C500 180 506 300 494 416C480 420 452 414 440 392C432 280 448 180 480 96Z", s)
        for y in (270, 320, 370):
            c.line(f"M528 {y}H552", dark(s, .5), 6)
        c.path(rr(454, 506, 52, 46, 8), C["brass"])
        c.path(rr(488, 506, 18, 46, 8), dark(C["brass"], .25))
        c.cel("M452 550H508C516 620 534 700 532 800C530 860 514 890 480 890C446 890 430 860 428 800C426 700 444 620 452 550Z", C["wood"], -22, 0, hx=9, hy=4)
        c.grain(["M470 590C466 680 462 760 470 850", "M494 590C498 680 504 760 494 850"], dark(C["wood"], .3), 4)
        c.line("M458 862Q480 872 502 862", C["coral"], 12)
    for x, y, r in ((250, 300, 16), (220, 250, 10), (292, 256, 8), (720, 700, 9)):
        c.dot(x, y, r, C["walnut"], .75)


def secateurs(c, room):
    c.tray(room, "board")
    s, h = C["steel"], C["red"]
    with c.lay("rotate(24 480 480)", 20, 22):
        # lower hook and its handle
        c.cel("M508 420C560 390 590 320 566 240C560 220 540 216 536 238C540 300 510 340 452 372L436 430Z", dark(s, .18), -14, -4)
        c.cel("M446 394C420 470 350 540 336 640C324 730 346 820 372 868C388 892 426 880 424 850C414 780 410 700 436 630C460 570 500 510 512 440Z", h, -20, -4, hx=9, hy=4)
        # upper blade and its handle
        c.cel("M446 440C400 400 380 300 420 170C430 130 450 92 476 78C520 160 544 280 520 420Z", s, -20, 0, hx=9, hy=6)
        c.line("M476 92C512 180 530 290 510 400", light(s, .7), 8, .9)
        c.cel("M514 394C548 470 612 540 626 640C638 730 616 820 590 868C574 892 536 880 538 850C548 780 552 700 526 630C502 570 462 510 448 440Z", h, -20, -4, hx=9, hy=4)
        c.line("M442 620C470 606 448 646 476 634C504 620 482 660 520 644", dark(s, .35), 9)
        c.cel(el(480, 424, 40), C["brass"], -10, -8)
        c.line("M462 424H498", dark(C["brass"], .5), 7)
        c.line("M398 850C440 872 520 872 562 850", C["walnut"], 16)
    c.sprig(196, 840, -28, 1.0, C["leaf"], 4)
    c.leaf(760, 250, 90, 40, C["leaf"])


def seedtin(c, room):
    c.stage(room, "circle", 690)
    c.shadow(480, 788, 290, 28)
    t = C["sage"]
    # lid behind
    c.cel("M236 500L270 330Q274 316 290 316H670Q686 316 690 330L724 500Z", dark(t, .12), -14, -6)
    c.path("M266 490L294 346H666L694 490Z", dark(t, .34))
    packs = (("#f3c7b4", "tomato"), ("#f6e3ac", "sun"), ("#cfe0d2", "carrot"), ("#cfdfe8", "pea"), ("#e4d8ea", "beet"))
    for i, (col, kind) in enumerate(packs):
        x, y = 268 + i * 84, 392 + (i % 2) * 18
        with c.at(f"rotate({(-5, 3, -2, 4, 6)[i]} {x+46} 560)"):
            c.cel(rr(x, y, 100, 250, 5), col, -10, 0)
            c.path(rr(x, y, 100, 22, 5), dark(col, .16))
            cx, cy = x + 48, y + 84
            if kind == "tomato":
                c.dot(cx, cy, 27, C["tomato"])
                for a in (-60, 0, 60):
                    c.leaf(cx, cy - 20, 22, a, C["deep"])
            elif kind == "sun":
                for a in range(0, 360, 30):
                    c.leaf(cx, cy, 36, a, C["mustard"])
                c.dot(cx, cy, 15, C["walnut"])
            elif kind == "carrot":
                c.path(f"M{cx-17} {cy-16}Q{cx} {cy-30} {cx+17} {cy-16}L{cx} {cy+42}Z", "#e08a45")
                for a in (-25, 0, 25):
                    c.leaf(cx, cy - 20, 26, a, C["deep"])
            elif kind == "pea":
                with c.at(f"rotate(-40 {cx} {cy})"):
                    c.ell(cx, cy, 40, 17, C["deep"])
                    for k in (-20, 0, 20):
                        c.dot(cx + k, cy, 9, "#a9cc8f")
            else:
                c.path(f"M{cx} {cy+46}C{cx-6} {cy+30} {cx-28} {cy+22} {cx-26} {cy}C{cx-22} {cy-24} {cx+22} {cy-24} {cx+26} {cy}C{cx+28} {cy+22} {cx+6} {cy+30} {cx} {cy+46}Z", "#9c3f62")
                for a in (-22, 18):
                    c.leaf(cx, cy - 14, 30, a, C["deep"])
    c.cel(rr(224, 520, 512, 268, 16), t, -34, -4, hx=10, hy=6)
    c.path(rr(224, 520, 512, 16, 8), light(t, .4))
    c.line("M240 570H720M240 752H720", dark(t, .2), 5, .5)
    c.cel(rr(370, 604, 220, 110, 8), C["brass"], -8, -6)
    c.path(rr(384, 618, 192, 82, 4), C["paper"])
    c.leaf(480, 682, 48, -38, C["leaf"])
    c.leaf(480, 682, 48, 38, C["deep"])
    c.line("M480 690V664", C["deep"], 5)
    c.line("M414 660H438M522 660H546", dark(C["oat"], .4), 5)


def bird(c, x, y, s, body, belly, flip=False):
    with c.at(f"translate({x} {y}) scale({-s if flip else s} {s})"):
        c.path("M-60 10L-132 46L-126 62L-50 40Z", dark(body, .3))
        c.cel("M70 -30C66 -70 20 -84 -10 -62C-50 -36 -80 0 -70 34C-56 76 30 74 58 30C70 8 74 -8 70 -30Z", body, -8, -10, k=.14)
        c.path("M62 -10C70 20 40 62 -6 60C-20 40 10 10 62 -10Z", belly)
        c.path("M-50 -10C-20 -26 16 -10 14 16C-10 40 -60 36 -84 30C-70 14 -66 -2 -50 -10Z", dark(body, .22))
        c.path("M68 -46L98 -34L66 -24Z", C["mustard"])
        c.dot(42, -44, 7, INK)
        c.dot(44, -46, 2.4, "#ffffff")
        c.line("M-4 62V84M18 58V82", dark(C["walnut"], .2), 6)


def birdhouse(c, room):
    c.stage(room, "hills", 1000)
    c.tube("M480 720V980", C["walnut"], 44, "butt")
    w = C["beech"]
    c.cel("M316 430L480 270L644 430V744H316Z", w, -40, 0, hx=8, hy=0)
    for x in (372, 426, 480, 534, 588):
        c.line(f"M{x} 300V744", dark(w, .25), 4, .5)
    c.cel("M480 196L726 430L690 468L480 270L270 468L234 430Z", C["coral"], -14, -12)
    c.line("M480 230L250 448", light(C["coral"], .4), 6, .7)
    c.dot(480, 470, 66, dark(w, .3))
    c.dot(484, 476, 56, dark(C["coffee"], .35))
    c.tube("M480 600V604", C["walnut"], 30)
    c.dot(480, 602, 16, light(C["walnut"], .2))
    c.cel(rr(290, 736, 380, 36, 10), C["walnut"], -20, -5)
    bird(c, 370, 668, .82, C["blue"], "#f2d9b4")
    c.line("M960 170C860 190 790 160 720 110", C["walnut"], 16)
    for x, y, a in ((850, 172, -40), (800, 160, 150), (760, 138, -20), (900, 182, 160), (730, 118, -70), (880, 176, -10)):
        c.leaf(x, y, 74, a, C["leaf"])


def glove(c, col, cuff):
    fingers = "M-78 -60L-106 -196M-28 -80L-38 -262M30 -80L38 -256M82 -56L108 -190"
    c.line(fingers + "M96 70L176 -20", dark(col, .2), 66)
    c.path("M-112 -80C-118 40 -108 110 -96 170H104C124 100 124 0 114 -80Z", dark(col, .2))
    with c.at("translate(-9 -5)"):
        c.line(fingers + "M96 70L176 -20", col, 54)
        c.path("M-100 -80C-108 40 -98 110 -84 170H90C106 100 112 0 106 -80Z", col)
    c.line("M-52 -90L-62 -180M2 -100V-190M56 -90L64 -180", dark(col, .3), 5, .7)
    c.line("M-110 -206L-90 -100M-44 -268L-38 -170M30 -262L26 -170", light(col, .5), 7, .6)
    c.line("M-70 40C-30 70 30 70 70 40", dark(col, .3), 5, .6, dash="16 12")
    c.cel(rr(-106, 160, 214, 130, 18), cuff, -18, -4)
    c.line("M-96 196H98M-96 252H98", light(cuff, .45), 6, .8, dash="18 13")


def gloves(c, col, cuff, room):
    c.tray(room, "circle")
    with c.lay("translate(636 520) rotate(16)", 20, 22):
        glove(c, col, cuff)
    with c.lay("translate(330 500) rotate(-12) scale(-1 1)", 20, 22):
        glove(c, col, cuff)


def trug(c, room):
    c.stage(room, "arch", 690)
    c.shadow(480, 790, 310, 34)
    w = C["wood"]
    c.line("M250 560C230 150 730 150 710 560", dark(w, .4), 46, cap="butt")
    c.line("M250 560C230 158 730 158 710 560", w, 34, cap="butt")
    # harvest
    for x, y, a in ((300, 540, -46), (350, 520, -34), (400, 526, -22)):
        with c.at(f"translate({x} {y}) rotate({a})"):
            for b in (-24, 0, 24):
                c.leaf(0, -60, 92, b, C["deep"], .3)
            c.cel("M-34 -56Q0 -84 34 -56L10 130H-10Z", "#e08a45", -9, -4)
            c.line("M-16 -20H4M-6 20H12", dark("#e08a45", .25), 4, .7)
    for x, y, r, col in ((492, 500, 66, "#8fb26b"), (468, 540, 60, "#a5c57f"), (530, 546, 64, "#7ba15d")):
        for i in range(9):
            p = pt(x, y, r * .62, i * 40)
            c.dot(p[0], p[1], r * .5, mix(col, C["deep"], .3 if i % 2 else 0))
        c.dot(x, y, r * .7, light(col, .15))
    for x, y, r in ((606, 548, 52), (672, 560, 46), (640, 500, 44)):
        c.cel(el(x, y, r, r * .92), C["tomato"], -12, -10)
        c.ell(x - r * .35, y - r * .35, 9, 6, "#f3b3a0")
        for a in (-70, -20, 30, 80):
            c.leaf(x, y - r * .72, 24, a, C["deep"], .3)
    hull = "M176 556H784C776 660 720 790 640 790H320C240 790 184 660 176 556Z"
    c.cel(hull, w, -44, -8, hx=12, hy=0)
    with c.clip(hull):
        for y in (614, 672, 730):
            c.path(f"M150 {y}H820V{y+8}H150Z", dark(w, .38))
            c.line(f"M190 {y+14}H760", light(w, .35), 4, .6)
    c.cel(rr(160, 540, 640, 34, 14), C["beech"], -10, -5)
    for x, y in ((252, 596), (708, 596), (252, 652), (708, 652)):
        c.dot(x, y, 8, C["brass"])
    c.line("M250 560V600M710 560V600", w, 34, cap="butt")
    for x in (250, 710):
        c.dot(x, 590, 8, C["brass"])


# === desk ======================================================================================

def lamp(c, col, room, on=False):
    c.stage(room, "circle", 700)
    if on:
        c.path("M508 392L236 800H760L682 470Z", "#ffe9a8", .16)
        c.ell(500, 800, 262, 44, "#ffe9a8", .3)
    c.shadow(360, 786, 150, 22)
    c.cel("M220 776C220 736 280 722 360 722C440 722 500 736 500 776Q360 806 220 776Z", col, -26, -6)
    c.tube("M360 730L258 470", C["brass"], 20)
    c.tube("M258 470L512 254", C["brass"], 20)
    c.cel(el(360, 726, 26, 16), C["brass"], -8, -4)
    c.cel(el(258, 470, 28), col, -9, -7)
    if on:
        with c.glow(612, 430, 380, "#ffe9a8", .5):
            pass
    with c.at("translate(520 262) rotate(-34)"):
        c.cel("M-44 0C-60 90 -150 120 -158 204Q0 250 158 204C150 120 60 90 44 0Z", col, -40, 0, hx=12, hy=4)
        c.line("M-120 150C-100 110 -60 90 -46 50", light(col, .6), 11, .7)
        c.ell(0, 204, 158, 34, light(col, .35))
        c.ell(0, 206, 148, 28, "#fff0bd" if on else dark(col, .5))
        c.ell(0, 214, 50, 19, "#ffffff" if on else "#fbf1d0")
        c.cel(rr(-46, -44, 92, 54, 20), col, -16, 0)
    if on:
        with c.at("translate(640 770)"):
            c.path("M-150 30Q-80 -10 0 20Q80 -10 150 30V44Q80 6 0 36Q-80 6 -150 44Z", dark(C["paper"], .4))
            c.path("M-146 22Q-80 -24 0 12Q80 -24 146 22V32Q80 -10 0 24Q-80 -10 -146 32Z", C["paper"])
            c.line("M-110 14Q-70 0 -30 14M30 14Q70 0 110 14", dark(C["oat"], .3), 4)
    else:
        c.book(560, 746, 240, 42, C["cream"])
        c.book(584, 708, 200, 38, C["coral"] if col != C["coral"] else C["sage"])
        c.cel(el(690, 676, 32), "#a9c27d", -9, -8)
        c.line("M690 648C690 638 694 630 702 624", C["walnut"], 6)


def notebook(c, col, room, opened=False):
    c.tray(room, "board")
    if not opened:
        with c.lay("rotate(-9 480 480)", 24, 26):
            c.path(rr(268, 164, 436, 632, 14), dark(col, .4))
            c.path(rr(268, 160, 428, 622, 10), C["paper"])
            for x in (684, 690):
                c.line(f"M{x} 176V770", dark(C["oat"], .25), 2)
            c.cel(rr(256, 152, 428, 620, 16), col, -10, -8, hx=7, hy=6)
            c.path("M256 168Q256 152 272 152H316V772H272Q256 772 256 756Z", dark(col, .22))
            c.line("M316 156V768", dark(col, .4), 4, .7)
            c.path(rr(388, 250, 226, 120, 8), C["paper"])
            c.line(rr(398, 260, 206, 100, 4), dark(C["oat"], .15), 3)
            c.line("M432 298H570M456 326H546", dark(C["oat"], .5), 6)
            band = C["mustard"] if col != C["oat"] else C["terracotta"]
            c.path("M632 152H656V772H632Z", band)
            c.path("M648 152H656V772H648Z", dark(band, .25))
            c.path("M430 772H456V836L443 822L430 836Z", dark(band, .15))
        with c.lay(dx=14, dy=16):
            c.pencil(740, 256, 520, -14, C["sage"] if col != C["sage"] else C["coral"], 30)
    else:
        with c.lay("rotate(-5 480 480)", 22, 24):
            c.path(rr(96, 206, 776, 560, 18), col)
            c.path("M112 222Q300 196 484 222Q668 196 856 222V748Q668 726 484 750Q300 726 112 748Z", dark(C["paper"], .16))
            c.path("M112 214Q300 190 484 214V740Q300 718 112 740Z", C["paper"])
            c.path("M484 214Q668 190 856 214V740Q668 718 484 740Z", light(C["paper"], .5))
            c.path("M440 209Q466 210 484 214V740Q466 736 440 735Z", dark(C["paper"], .12))
            for y in range(270, 700, 36):
                for x in range(530, 840, 36):
                    c.dot(x, y, 3, "#b9aa8e")
            for i, y in enumerate(range(280, 690, 44)):
                e = (440, 420, 436, 300, 440, 410, 430, 360, 438, 250)[i]
                seg = "".join(f"q6 -{c.rnd.randint(6, 14)} 12 0t12 0" for _ in range((e - 156) // 24))
                c.line(f"M156 {y}{seg}", C["night"], 4, .75)
            c.line("M650 606C660 540 640 470 654 380", C["deep"], 6)
            for x, y, a in ((650, 570, -62), (655, 540, 58), (652, 500, -56), (648, 464, 60), (648, 430, -48), (652, 400, 44), (654, 386, -4)):
                c.leaf(x, y, 84 - (570 - y) * .1, a, C["leaf"], .42)
            c.line("M560 604H740", C["walnut"], 6)
            c.path("M580 604H720L706 680H594Z", C["terracotta"])
        with c.lay(dx=14, dy=16):
            c.pencil(726, 560, 420, -38, C["mustard"], 28)


PENCILS = ("coral", "mustard", "sage", "blue", "lilac", "walnut")


def pencils(c, room, close=False):
    c.tray(room, "circle")
    if not close:
        for i, n in enumerate(PENCILS):
            with c.lay(dx=10, dy=14):
                c.pencil(258 + i * 88, 150 + abs(i - 2.5) * 26, 560, 0, C[n], 50)
        with c.lay(dx=18, dy=22):
            c.cel(rr(196, 540, 568, 290, 12), C["oat"], -14, -8, hx=6, hy=6)
        c.path("M196 552Q196 540 208 540H400Q410 590 480 590Q550 590 560 540H752Q764 540 764 552V560H196Z", C["oat"])
        c.path(rr(196, 690, 568, 56, 0), C["terracotta"])
        c.path(rr(196, 690, 568, 6, 0), light(C["terracotta"], .4))
        with c.at("translate(480 626)"):
            for i, n in enumerate(PENCILS):
                c.dot(-125 + i * 50, 0, 15, C[n])
        c.line("M400 786H560", dark(C["oat"], .4), 7)
    else:
        paper = C["paper"]
        with c.lay("rotate(-6 480 480)"):
            c.path(rr(130, 120, 700, 720, 8), paper)
        with c.at("rotate(-6 480 480)"):
            for i, n in enumerate(PENCILS):
                y = 230 + i * 70
                c.line(f"M200 {y}" + "".join(f"q14 {-44 if k % 2 else 44} 28 0" for k in range(7 + i % 3)), C[n], 11, .85)
        for i, n in enumerate(PENCILS[:3]):
            with c.lay(dx=14, dy=18):
                c.pencil(500 + i * 74, 330 + i * 150, 760, -58 - i * 4, C[n], 62)
        for x, y, a in ((300, 790, 10), (350, 810, 70), (262, 816, 130)):
            with c.lay(f"translate({x} {y}) rotate({a})", 5, 6):
                c.path("M-30 0A30 30 0 0 1 30 0L20 8A20 20 0 0 0 -20 8Z", C["beech"])
                c.line("M-30 0A30 30 0 0 1 30 0", C["coral"], 5)


def pen(c, room):
    c.tray(room, "board")
    n = C["night"]
    with c.lay("rotate(-5 480 480)", 8, 10, .12):
        c.path(rr(150, 200, 660, 560, 6), C["paper"])
    with c.at("rotate(-5 480 480)"):
        for y in range(280, 740, 56):
            c.line(f"M190 {y}H770", "#d9cbab", 3)
        c.line("M196 332C230 290 262 290 250 330C240 362 286 350 310 318C330 292 360 300 350 328C344 352 380 346 398 322C420 292 452 300 440 330C434 352 470 350 492 324", C["blue"], 8)
        c.line("M196 444C240 410 250 440 280 430C320 416 320 440 352 434C372 430 380 424 400 428", C["blue"], 8)
    with c.lay("rotate(42 480 520)", 18, 22, .24):
        c.cel("M456 226L480 128L504 226L496 262H464Z", C["brass"], -12, 0, hx=5, hy=0)
        c.line("M480 140V206", dark(C["brass"], .5), 4)
        c.dot(480, 212, 7, dark(C["brass"], .6))
        c.cel("M456 262H504L516 392H444Z", dark(n, .3), -18, 0, hx=6, hy=0)
        c.path(rr(440, 388, 80, 20, 5), C["brass"])
        c.path(rr(494, 388, 26, 20, 5), dark(C["brass"], .25))
        c.cel("M436 408H524L514 830Q512 876 480 876Q448 876 446 830Z", n, -24, 0, hx=9, hy=0)
        c.path(rr(452, 440, 12, 350, 6), light(n, .5), .8)
        c.path(rr(447, 812, 66, 12, 4), C["brass"])
    with c.lay("translate(716 690) rotate(24)", 18, 22, .24):
        c.cel("M-52 -130H52V100Q48 150 0 150Q-48 150 -52 100Z", n, -26, 0, hx=9, hy=0)
        c.path(rr(-54, -132, 108, 24, 5), C["brass"])
        c.path(rr(22, -132, 32, 24, 5), dark(C["brass"], .25))
        c.cel(rr(-12, -60, 24, 190, 12), C["brass"], -7, -3)
        c.path(rr(-40, -90, 12, 150, 6), light(n, .5), .8)


def clock(c, room):
    c.stage(room, "arch", 690)
    c.shadow(480, 784, 220)
    w = C["walnut"]
    c.cel("M330 700L282 784H326L388 726ZM630 700L678 784H634L572 726Z", dark(w, .15), -10, 0)
    c.cel(el(480, 490, 262), w, -22, -16, hx=10, hy=9)
    c.dot(480, 490, 222, dark(w, .45))
    c.dot(484, 495, 214, C["cream"])
    c.path("M484 281A214 214 0 0 1 698 495A214 214 0 0 1 484 709C600 660 660 560 640 450C628 360 570 300 484 281Z", dark(C["cream"], .08))
    for i in range(60):
        a, b = pt(484, 495, 192, i * 6), pt(484, 495, 192 - (30 if i % 5 == 0 else 9), i * 6)
        c.line(f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}", C["night"], 10 if i % 15 == 0 else 7 if i % 5 == 0 else 3, .9)
    with c.clip(el(484, 575, 46)):
        c.dot(484, 575, 46, C["blue"])
        c.path("M430 586Q450 572 470 586T510 586T550 586V640H430Z", light(C["blue"], .45))
        c.dot(500, 556, 12, C["lemon"])
    c.line(el(484, 575, 46), C["brass"], 5)
    for a, l, wd in ((-54, 112, 17), (62, 158, 11)):
        p, q = pt(484, 495, l, a), pt(484, 495, -30, a)
        with c.at("translate(5 7)", .2):
            c.line(f"M{q[0]:.1f} {q[1]:.1f}L{p[0]:.1f} {p[1]:.1f}", INK, wd)
        c.line(f"M{q[0]:.1f} {q[1]:.1f}L{p[0]:.1f} {p[1]:.1f}", C["night"], wd)
    p = pt(484, 495, 170, 200)
    c.line(f"M484 495L{p[0]:.1f} {p[1]:.1f}", C["coral"], 5)
    c.dot(484, 495, 16, C["brass"])
    c.cel(rr(446, 204, 68, 30, 12), C["brass"], -12, -4)


def scissors(c, room):
    c.tray(room, "circle")
    b, s = C["brass"], C["steel"]
    with c.lay("rotate(30 480 480)", 20, 22):
        for m in (-1, 1):
            with c.at(f"translate(480 0) scale({m} 1)"):
                with c.at("rotate(11 0 470)"):
                    c.cel("M-30 520L-34 420C-34 280 -16 140 10 56C30 140 34 300 26 520Z", s if m < 0 else dark(s, .1), -14 * m, 0, hx=6 * m, hy=4)
                    c.line("M10 80C24 170 28 300 22 430", light(s, .8), 6, .9)
                    c.tube("M-4 500C-10 570 -30 600 -40 640", b, 40)
                    c.line(el(-84, 752, 84, 112), dark(b, .28), 36)
                    with c.at("translate(-3 -3)"):
                        c.line(el(-84, 752, 84, 112), b, 27)
                    c.line("M-160 720C-156 680 -130 650 -100 646", light(b, .6), 6, .9)
        c.cel(el(480, 480, 26), b, -8, -6)
        c.line("M468 488L492 472", dark(b, .5), 6)
    with c.lay(dx=8, dy=10):
        c.line("M700 690C760 640 820 700 770 740C720 776 690 700 760 680C830 660 850 740 810 800", C["coral"], 10)


def bookends(c, room):
    c.stage(room, "panels", 690)
    c.shadow(480, 792, 350, 26)
    t = C["terracotta"]
    with c.at("translate(480 792) scale(1.14) translate(-480 -772)"):
        for x, m in ((264, 1), (698, -1)):
            with c.at(f"translate({x} 0) scale({m} 1)"):
                c.cel("M-136 772C-136 610 -80 508 0 508V772Z", t, -26 * m, 0, hx=9 * m, hy=6)
                c.cel("M-92 772C-92 660 -60 570 0 570V772Z", C["cream"], -12 * m, 0, k=.16, hx=5 * m, hy=4)
                c.cel("M-52 772C-52 700 -34 640 0 640V772Z", C["mustard"], -8 * m, 0, k=.2, hx=4 * m, hy=4)
        x = 264
        for w, h, col in ((64, 300, "navy"), (52, 340, "mustard"), (74, 280, "sage"), (46, 320, "cream"),
                          (60, 350, "coral"), (82, 300, "slate"), (56, 268, "oat")):
            c.book(x, 772 - h, w, h, C[col], light(C[col], .55) if col not in ("cream", "oat") else C["terracotta"])
            x += w


def inkbottle(c, col, room):
    c.stage(room, "circle", 690)
    c.shadow(480, 780, 210)
    g = "M330 500C290 510 276 530 276 566V726Q276 782 332 782H628Q684 782 684 726V566C684 530 670 510 630 500L572 488V440H388V488Z"
    c.path(g, "#ffffff", .55)
    with c.clip("M346 524C310 530 298 546 298 576V720Q298 760 338 760H622Q662 760 662 720V576C662 546 650 530 614 524Z"):
        c.path(rr(260, 566, 440, 220, 0), col)
        c.path("M600 560H700V790H560C600 720 606 640 600 560Z", dark(col, .35))
        c.ell(480, 566, 190, 16, light(col, .35))
    c.line(g, "#ffffff", 7, .8)
    c.path(rr(312, 574, 18, 130, 9), "#ffffff", .65)
    c.path(rr(376, 610, 208, 116, 8), C["paper"])
    c.line(rr(386, 620, 188, 96, 4), dark(C["oat"], .15), 3)
    c.path("M480 630C500 660 506 668 506 682A26 26 0 0 1 454 682C454 668 460 660 480 630Z", col)
    c.ell(470, 686, 5, 9, light(col, .6))
    c.cel(rr(366, 350, 228, 96, 16), C["walnut"], -30, -4, hx=8, hy=6)
    for x in range(392, 590, 26):
        c.line(f"M{x} 364V434", dark(C["walnut"], .35), 4, .6)
    # a dip pen and a stroke of the colour
    c.path(rr(130, 826, 700, 80, 4), C["paper"])
    c.line("M190 866" + "".join(f"q18 {-30 if k % 2 else 30} 36 0" for k in range(15)), col, 9)


# === textiles ==================================================================================

def stool(c, y, x0=210, x1=750):
    w = C["beech"]
    for x, t in ((x0 + 50, -40), (x1 - 50, 40)):
        c.line(f"M{x} {y+30}L{x+t} 876", dark(w, .25), 34)
        c.line(f"M{x-4} {y+30}L{x+t-4} 876", w, 26)
    c.line(f"M{x0+28} {y+120}H{x1-28}", dark(w, .2), 20)
    c.cel(rr(x0, y, x1 - x0, 44, 20), w, -20, -6)


def blanket(c, col, stripe, room):
    c.stage(room, "circle", 740)
    c.ell(490, 880, 330, 26, INK, .14)
    stool(c, 660)
    for i, y in enumerate((560, 452, 344)):
        x, w, h = 236 + i * 8, 488 - i * 12, 108
        d = f"M{x+54} {y}H{x+w-8}Q{x+w+10} {y+h/2} {x+w-8} {y+h}H{x+54}A54 54 0 0 1 {x+54} {y}Z"
        c.cel(d, col, -16, -12, hx=7, hy=8)
        with c.clip(d):
            for k in (0, 1, 2):
                c.path(rr(x + 90 + k * 52, y, 24 if k != 1 else 12, h, 0), stripe, .9)
            c.path(rr(x, y + h - 16, w + 20, 16, 0), INK, .12)
        c.line(f"M{x+60} {y+h/2}H{x+w-14}", dark(col, .28), 5, .75)
        c.line(f"M{x+26} {y+h/2}Q{x+40} {y+h/2} {x+60} {y+h/2}", dark(col, .28), 5, .6)
    d = "M560 344H706V600Q640 616 560 600Z"
    c.cel(d, col, -12, 0, hx=6, hy=0)
    with c.clip(d):
        for y in (500, 540, 572):
            c.path(rr(540, y, 200, 18 if y != 540 else 9, 0), stripe, .9)
    for x in range(566, 706, 14):
        c.line(f"M{x} 602C{x-4} 624 {x+4} 636 {x} 656", col if x % 28 < 14 else light(col, .3), 7)


def blanket_chair(c, col, stripe, room):
    c.stage(room, "window", 730)
    seat = C["sage"]
    c.ell(480, 868, 340, 30, INK, .15)
    c.line("M250 800L236 866M690 800L706 866", C["walnut"], 26)
    c.cel("M226 360Q226 230 350 230H590Q714 230 714 360V720H226Z", seat, -26, -10, hx=10, hy=10)
    c.line("M356 330V540M470 310V540M584 330V540", dark(seat, .2), 5, .5)
    c.cel(rr(250, 590, 440, 150, 40), light(seat, .1), -20, -10)
    for x in (170, 656):
        c.cel(rr(x, 500, 130, 316, 56), seat, -22, -8, hx=9, hy=9)
    c.path(rr(226, 736, 500, 80, 20), dark(seat, .2))
    d = "M330 214H560C570 330 600 420 590 560C586 640 640 700 650 800L430 826C420 740 370 690 362 600C350 460 340 330 330 214Z"
    with c.at("translate(14 12)"):
        c.path(d, INK, .14)
    c.cel(d, col, -24, -4, hx=10, hy=4)
    with c.clip(d):
        for y, w in ((250, 26), (300, 12), (340, 26), (640, 26), (694, 12), (736, 26)):
            c.line(f"M300 {y}C400 {y+20} 500 {y+10} 700 {y-6}", stripe, w, .9, "butt")
        c.line("M450 240C450 400 470 520 480 600C490 690 520 740 530 810M520 250C530 380 530 480 536 560", dark(col, .3), 6, .45)
    for i in range(16):
        x, y = 436 + i * 14, 826 - i * 1.8
        c.line(f"M{x} {y}q-4 16 2 34", col if i % 2 else light(col, .3), 7)


def cushion(c, col, room):
    c.stage(room, "arch", 650)
    c.shadow(480, 806, 270, 30)
    d = "M212 296Q480 256 748 296Q786 554 752 812Q480 842 208 812Q174 554 212 296Z"
    pale = light(col, .62)
    with c.at("rotate(-3 480 800)"):
        for x, y, a in ((212, 296, -45), (748, 296, 45), (208, 812, -135), (752, 812, 135)):
            with c.at(f"translate({x} {y}) rotate({a})"):
                for k in (-14, 0, 14):
                    c.line(f"M0 0L{k} -40", pale, 7)
                c.dot(0, -3, 11, dark(col, .2))
        c.cel(d, col, -44, -22, k=.2, hx=14, hy=11)
        with c.clip(d):
            for i in range(3):
                for j in range(3):
                    b = (j - 1) * 6
                    x, y = 480 + (i - 1) * (158 - abs(b)), 552 + (j - 1) * 152
                    for a in (0, 90, 180, 270):
                        c.leaf(x, y, 50, a + 45, pale, .34)
                    c.dot(x, y, 9, C["mustard"])
            for k in (-1, 1):
                c.line(f"M{480+k*79} 280C{480+k*90} 460 {480+k*90} 640 {480+k*79} 820", pale, 3, .5, dash="14 14")
                c.line(f"M190 {552+k*76}C360 {552+k*84} 600 {552+k*84} 770 {552+k*76}", pale, 3, .5, dash="14 14")
        c.line(d, light(col, .35), 9, .85)
        c.line("M236 326C262 350 276 372 284 400M724 326C698 350 684 372 676 400M234 782C258 760 272 740 280 712M726 782C702 760 688 740 680 712",
               dark(col, .35), 7, .45)


def towels(c, room):
    c.wall(room, 150)
    for x, col, kind in ((250, C["cream"], 0), (482, C["blue"], 1), (712, C["coral"], 2)):
        c.peg(x, 200)
        d = f"M{x} 186C{x-16} 236 {x-92} 262 {x-104} 320L{x-96} {760-kind*36}Q{x} {782-kind*36} {x+96} {760-kind*36}L{x+104} 320C{x+92} 262 {x+16} 236 {x} 186Z"
        with c.at("translate(20 16)"):
            c.path(d, INK, .13)
        c.cel(d, col, -24, 0, hx=9, hy=0)
        with c.clip(d):
            pale = light(col, .7)
            if kind == 0:
                for y in (600, 640, 664, 704):
                    c.path(rr(x - 130, y, 260, 24 if y in (600, 704) else 9, 0), C["coral"])
            elif kind == 1:
                for k in range(-4, 5):
                    c.line(f"M{x+k*28} 180V800", pale, 5, .75)
                for y in range(220, 800, 40):
                    c.line(f"M{x-130} {y}H{x+130}", pale, 5, .75)
            else:
                for k in range(-3, 4):
                    c.line(f"M{x+k*34} 180V800", pale, 12, .9)
            c.path(f"M{x+50} 250C{x+60} 420 {x+56} 600 {x+60} 800H{x+130}V250Z", INK, .1)
            for k, e in ((-34, -52), (10, 14), (44, 60)):
                c.line(f"M{x+k*.2:.0f} 210C{x+k*.7:.0f} 300 {x+e} 380 {x+e} 480", dark(col, .35), 6, .35)
        c.line(f"M{x-10} 196C{x-10} 176 {x+10} 176 {x+10} 196", dark(col, .3), 8)
        c.dot(x - 2, 188, 10, light(C["walnut"], .15))


def apron(c, col, tie, room):
    c.wall(room, 120)
    c.peg(480, 166)
    c.line("M382 330C400 250 450 190 480 164C510 190 560 250 578 330", dark(tie, .15), 20)
    c.line("M382 328C400 250 450 188 480 162C510 188 560 250 578 328", tie, 13)
    d = "M374 316H586C590 400 640 460 704 486L716 856Q480 886 244 856L256 486C320 460 370 400 374 316Z"
    c.line("M262 500C200 520 190 640 214 740C224 780 206 800 196 826", tie, 17)
    c.line("M698 500C762 530 770 630 744 730C736 770 756 800 764 820", tie, 17)
    with c.at("translate(20 16)"):
        c.path(d, INK, .13)
    c.cel(d, col, -40, 0, hx=12, hy=0)
    with c.clip(d):
        c.path("M300 560C320 660 300 760 310 880H280C270 760 290 660 280 560Z", INK, .07)
        c.path("M620 520C640 640 620 760 640 880H670C660 760 660 640 644 520Z", INK, .09)
        c.line("M374 340H586", light(col, .4), 4, .8, dash="14 10")
    p = "M336 590H624V734Q624 770 588 770H372Q336 770 336 734Z"
    c.cel(p, light(col, .12), -10, -6, k=.18)
    c.line("M480 594V768M344 616H616", dark(col, .3), 5, .7)
    c.line("M348 628H612M472 632V760M488 632V760", light(col, .55), 3, .8, dash="12 9")
    for x in (382, 578):
        c.dot(x, 330, 12, C["brass"])
        c.dot(x, 330, 5, dark(C["brass"], .5))
    c.tube("M400 640V560", C["wood"], 18)
    c.cel(el(400, 530, 26, 40), C["wood"], -8, -6)
    c.path("M336 600H470V680H336Z", light(col, .12))
    c.line("M344 616H476", dark(col, .3), 5, .7)
    c.line("M348 628H468", light(col, .55), 3, .8, dash="12 9")


def tote(c, room):
    c.stage(room, "arch", 710)
    c.shadow(480, 812, 230)
    col = C["oat"]
    c.line("M380 450C380 200 580 200 580 450", dark(C["terracotta"], .3), 24)
    # what was bought
    with c.at("rotate(-14 400 400)"):
        c.cel(rr(356, 180, 76, 340, 38), "#cf9452", -16, -4)
        for y in (220, 276, 332):
            c.path(f"M366 {y+26}L420 {y}L424 {y+14}L370 {y+40}Z", "#f0d5a5")
    for a in (-16, -4, 8, 20):
        c.leaf(560, 470, 250, a + 6, mix(C["leaf"], C["deep"], (a + 16) / 50), .16)
    for x, y, r in ((478, 440, 44), (630, 452, 40)):
        c.cel(el(x, y, r), C["lemon"] if x < 500 else C["tomato"], -10, -9)
    d = "M268 450Q480 474 692 450L716 770Q716 812 674 812H286Q244 812 244 770Z"
    c.cel(d, col, -40, -4, hx=12, hy=0)
    with c.clip(d):
        c.line("M262 482Q480 506 698 482", dark(col, .3), 4, .7, dash="16 10")
        c.path("M300 500C330 600 310 700 340 820H300C290 700 300 600 280 500Z", INK, .06)
    c.line("M366 500C366 240 420 216 480 216C540 216 594 240 594 500", dark(C["terracotta"], .2), 26)
    c.line("M363 500C363 238 418 212 477 212C536 212 590 238 590 500", C["terracotta"], 20)
    for x in (364, 592):
        c.cel(rr(x - 20, 480, 40, 66, 6), C["terracotta"], -8, -4)
        c.line(f"M{x-11} 492L{x+11} 534M{x+11} 492L{x-11} 534", light(C["terracotta"], .5), 3)
    with c.at("translate(480 668)"):
        for a in range(0, 360, 45):
            c.leaf(0, 0, 84, a, C["blue"], .34)
        c.dot(0, 0, 19, C["mustard"])
        c.line("M-150 104H150", C["blue"], 7)


def scarf(c, room):
    c.wall(room, 120)
    c.peg(480, 170)
    a, b, m = C["blue"], C["cream"], C["mustard"]
    for x, e, s in ((560, 690, -1), (400, 800, 1)):
        d = f"M{x-20} 300C{x-80} 420 {x-84} 520 {x-78} {e}H{x+78}C{x+84} 520 {x+80} 420 {x+30} 300Z"
        for k in range(9):
            fx = x - 68 + k * 17
            c.line(f"M{fx} {e-4}q-5 26 3 60", a if k % 2 else b, 9)
        with c.at("translate(14 12)"):
            c.path(d, INK, .13)
        c.cel(d, a, -22, 0, hx=9, hy=0)
        with c.clip(d):
            for y, h, col in ((e - 70, 36, b), (e - 108, 14, m), (e - 146, 14, b), (e - 250, 36, b), (e - 288, 14, m), (e - 326, 14, b)):
                c.path(rr(x - 110, y, 220, h, 0), col)
                c.path(rr(x + 52, y, 60, h, 0), dark(col, .2))
            c.line(f"M{x-20} 330C{x-40} 440 {x-30} 560 {x-36} {e}M{x+18} 330C{x+34} 440 {x+26} 560 {x+30} {e}", dark(a, .4), 5, .35)
    loop = "M480 168C420 180 340 220 336 300C334 350 380 372 420 366C450 420 520 420 550 366C600 376 640 340 626 290C612 220 540 180 480 168Z"
    with c.at("translate(10 14)"):
        c.path(loop, INK, .14)
    c.cel(loop, a, -22, -12, hx=9, hy=8)
    c.path("M480 196C440 212 402 246 404 282C430 306 530 306 558 282C556 246 520 212 480 196Z", dark(a, .45))
    c.line("M372 260C380 330 460 356 540 330M420 366C450 384 520 384 550 366", dark(a, .35), 6, .6)
    c.dot(478, 166, 19, light(C["walnut"], .1))
    c.dot(473, 160, 8, light(C["walnut"], .35))


def sock(c, col, acc):
    d = "M-86 -270H86V60C86 110 120 140 196 168C260 194 262 290 180 290H20C-60 290 -100 240 -94 160C-90 110 -86 80 -86 20Z"
    c.cel(d, col, -24, -10, hx=10, hy=6)
    with c.clip(d):
        c.path("M-120 290C-120 180 -80 110 -40 90C0 160 -10 230 -50 300Z", acc)
        c.path("M150 140C120 180 120 250 150 300H300V140Z", acc)
        for y, h in ((-150, 26), (-108, 10), (-80, 26)):
            c.path(rr(-100, y, 200, h, 0), acc)
        c.path("M60 -280H100V60H60Z", INK, .1)
    c.cel(rr(-94, -284, 188, 110, 16), acc, -20, -4)
    for x in range(-76, 90, 21):
        c.line(f"M{x} -272V-186", dark(acc, .28), 5, .6)


def socks(c, col, acc, room, big):
    c.tray(room, "circle")
    s = 1.06 if big else .9
    with c.lay(f"translate(560 470) rotate(9) scale({s})", 20, 22):
        sock(c, col, acc)
    with c.lay(f"translate(350 510) rotate(-7) scale({s})", 20, 22):
        sock(c, col, acc)
    with c.lay("translate(800 250)" if not big else "translate(800 230)", 12, 14):
        y = C["mustard"] if acc != C["mustard"] else C["coral"]
        c.dot(0, 0, 64, y)
        for k in (-36, -12, 12, 36):
            c.line(f"M{-50+abs(k)*.4:.0f} {k}Q0 {k-24} {50-abs(k)*.4:.0f} {k}", dark(y, .22), 6, .7)
        c.line("M-30 -50Q20 0 -20 56M6 -60Q46 0 10 62", light(y, .4), 6, .8)
    c.line("M748 284C700 340 790 360 760 420" if not big else "M748 264C720 300 790 320 770 360", C["mustard"] if acc != C["mustard"] else C["coral"], 7)


def mitt(c, room):
    c.wall(room, 130)
    c.peg(500, 178)
    col, pale = C["terracotta"], C["cream"]
    d = "M352 780C330 640 300 500 330 400C350 320 420 280 490 284C580 290 630 360 626 460L622 520C640 470 690 440 726 466C766 496 744 556 700 610C670 648 650 690 640 780Z"
    c.line("M470 286C470 210 486 190 500 180C514 190 530 210 524 290", pale, 12)
    with c.at("translate(22 18)"):
        c.path(d, INK, .14)
    c.cel(d, col, -32, -6, hx=11, hy=9)
    with c.clip(d):
        for k in range(-6, 14):
            c.line(f"M{200+k*70} 240L{-340+k*70+200+40} 800M{k*70-100} 240L{k*70+440} 800", light(col, .5), 4, .55, dash="13 10")
    c.line("M622 520C618 560 610 590 600 620", dark(col, .4), 8, .6)
    c.cel("M336 756Q496 790 656 756L652 846Q496 880 344 846Z", pale, -26, -4)
    for k in range(7):
        x = 366 + k * 42
        c.leaf(x, 836, 46, 0, C["deep"] if k % 2 else C["leaf"])
    c.dot(500, 182, 12, light(C["walnut"], .1))


# === outdoors ==================================================================================

def kettle(c, room):
    c.stage(room, "hills", 740)
    for x, a in ((320, 10), (480, -3), (620, -12)):
        with c.at(f"rotate({a} {x} 850)"):
            c.cel(rr(x - 150, 828, 300, 46, 22), C["walnut"], -10, -8)
            c.ell(x + 138, 851, 12, 21, C["beech"])
    for x, h, col in ((380, 120, C["coral"]), (480, 140, C["coral"]), (580, 116, C["coral"]), (430, 80, C["lemon"]), (530, 88, C["lemon"])):
        c.path(f"M{x} {846-h}C{x+50} {846-h*.5} {x+46} 846 {x} 846C{x-46} 846 {x-50} {846-h*.5} {x} {846-h}Z", col)
    col = C["blue"]
    c.line("M330 470C330 190 630 190 630 470", dark(C["steel"], .4), 18)
    c.line("M328 470C328 188 628 188 628 468", C["steel"], 11)
    c.tube("M410 246C450 226 510 226 550 246", C["wood"], 36)
    c.cel("M650 560C720 540 740 450 800 412L830 440C800 490 780 630 640 660Z", col, -12, -10)
    c.cel("M300 520C300 450 380 420 480 420C580 420 660 450 660 520L690 690Q690 740 640 740H320Q270 740 270 690Z", col, -46, -4, hx=13, hy=6)
    c.path("M286 610L270 690Q270 740 320 740H640Q690 740 690 690L674 610Q480 640 286 610Z", dark(col, .12), .6)
    for _ in range(44):
        c.dot(c.rnd.randint(290, 670), c.rnd.randint(450, 720), c.rnd.choice((2, 3, 4)), "#ffffff", .55)
    c.path("M336 520C340 490 370 470 400 462C376 490 366 520 362 570C358 600 330 570 336 520Z", light(col, .6), .7)
    c.line("M268 700Q268 744 320 744H640Q692 744 692 700", dark(C["night"], .2), 10)
    c.cel("M372 430C384 388 576 388 588 430Q480 452 372 430Z", col, -14, -5)
    c.line("M372 432Q480 454 588 432", dark(C["night"], .2), 8)
    c.cel(el(480, 386, 22, 20), C["wood"], -7, -5)
    c.steam(830, 392, .62)


def lantern(c, col, room, lit):
    c.stage(room, "hills" if lit else "circle", 720)
    if lit:
        for x, y in ((120, 120), (240, 220), (380, 90), (620, 110), (840, 170), (890, 330), (90, 360), (760, 60)):
            c.dot(x, y, 4, "#fdf3d0", .9)
        with c.glow(480, 520, 420, "#ffd98a", .75):
            pass
    c.shadow(480, 800, 180)
    c.line("M318 330C310 90 650 90 642 330", dark(C["steel"], .35), 16)
    c.line("M316 330C308 90 648 90 640 328", C["steel"], 9)
    for x in (336, 624):
        c.tube(f"M{x} 340V690", col, 28, "butt")
    c.cel("M396 380H564L570 400Q580 440 604 480C630 540 620 620 570 660H390C340 620 330 540 356 480Q380 440 390 400Z", "#fdf2cf" if lit else "#f4f8f6", -18, -4, k=.1)
    if lit:
        with c.glow(480, 560, 150, "#ffbf4d", .8):
            pass
    c.path("M480 456C520 510 532 556 524 590C516 622 444 622 436 590C428 556 440 510 480 456Z", "#f0a13c" if lit else "#efb65f")
    c.path("M480 520C500 552 504 572 500 592C496 610 464 610 460 592C456 572 460 552 480 520Z", "#fff0b8")
    c.path(rr(468, 600, 24, 60, 4), dark(C["brass"], .2))
    c.line("M380 520C372 560 378 600 394 626", "#ffffff", 12, .8)
    c.line("M344 470H616M340 590H620", dark(C["steel"], .2), 7, .8)
    c.cel("M370 660H590L606 704H354Z", C["brass"], -26, 0)
    c.cel("M300 704H660L680 770Q680 804 640 804H320Q280 804 280 770Z", col, -44, -4, hx=12, hy=6)
    c.path(rr(330, 724, 22, 50, 11), light(col, .6), .6)
    c.cel(el(600, 752, 22), C["brass"], -7, -5)
    c.cel("M360 384C366 330 420 300 430 262H530C540 300 594 330 600 384Z", col, -34, 0, hx=10, hy=4)
    c.cel(rr(414, 232, 132, 34, 10), col, -20, -3)
    for x in (330, 630):
        c.dot(x, 338, 17, dark(col, .25))
        c.dot(x - 3, 335, 11, light(col, .2))


def flask(c, col, room):
    c.stage(room, "hills", 720)
    c.shadow(420, 806, 120)
    c.line("M536 380C640 400 640 560 536 600", dark(C["walnut"], .2), 20)
    c.line("M534 378C632 400 632 556 534 596", C["walnut"], 13)
    c.cel("M304 370Q304 320 340 310H500Q536 320 536 370V770Q536 808 498 808H342Q304 808 304 770Z", col, -50, 0, hx=14, hy=4)
    c.path(rr(304, 360, 232, 20, 0), dark(col, .3), .6)
    c.path(rr(304, 592, 232, 20, 0), dark(col, .3), .6)
    c.path(rr(336, 410, 20, 160, 10), light(col, .6), .65)
    c.path(rr(304, 760, 232, 14, 0), C["steel"])
    with c.at("translate(430 680)"):
        c.path("M-62 40L-18 -34L8 6L26 -22L66 40Z", light(col, .6))
        c.dot(36, -36, 11, light(col, .6))
    c.path(rr(326, 294, 188, 24, 6), C["steel"])
    c.path(rr(460, 294, 54, 24, 6), dark(C["steel"], .25))
    c.cel("M330 160Q330 140 350 140H490Q510 140 510 160V296H330Z", C["beech"], -36, 0, hx=10, hy=5)
    c.grain(["M370 150V290", "M408 150C404 200 412 240 406 290", "M446 150V290", "M478 150C482 200 474 250 478 290"], dark(C["beech"], .28), 4)
    c.shadow(700, 806, 80)
    c.line("M760 690C820 680 820 770 752 764", dark(col, .25), 20)
    c.line("M758 688C814 680 812 764 752 760", col, 14)
    c.cel("M622 660H774L762 780Q760 806 734 806H662Q636 806 634 780Z", col, -26, 0)
    c.ell(698, 660, 76, 15, C["steel"])
    c.ell(698, 662, 66, 11, C["coffee"])
    c.steam(690, 640, .7)


def pine(c, x, y, h, col):
    c.path(rr(x - h * .03, y - h * .12, h * .06, h * .14, 0), C["walnut"])
    for i in range(3):
        t, w = y - h + i * h * .25, h * (.16 + i * .07)
        b = t + h * .4
        c.path(f"M{x} {t}L{x+w} {b}H{x-w}Z", col)
        c.path(f"M{x} {t}L{x+w} {b}H{x+w*.1}Z", dark(col, .2))


def tent(c, room, night):
    wall = ROOM[room][0]
    c.stage(room, "hills", 1000)
    if night:
        for x, y in ((100, 120), (210, 240), (340, 90), (500, 160), (600, 60), (860, 120), (900, 350), (60, 340), (430, 260), (800, 60)):
            c.dot(x, y, c.rnd.choice((3, 4, 5)), "#fdf3d0", .9)
        c.path("M728 196A78 78 0 1 1 640 320A70 70 0 0 0 728 196Z", "#f7e7b4")
    g = mix(C["leaf"], wall, .25) if not night else mix(C["deep"], wall, .55)
    p = mix(C["deep"], wall, .1 if not night else .55)
    for x, h in ((90, 340), (190, 260), (812, 300), (900, 380)):
        pine(c, x, 730, h, p)
    c.path("M0 720Q240 680 480 712T960 700V960H0Z", g)
    c.path("M0 840Q300 800 600 842T960 830V960H0Z", dark(g, .12))
    canvas = C["cream"] if not night else "#f6d58c"
    c.ell(490, 824, 380, 26, INK, .16)
    c.line("M476 330L120 850M484 330L850 850", C["oat"], 5)
    c.cel("M480 300L800 820H160Z", canvas, -30, -10, k=.16, hx=10, hy=4)
    c.path("M480 300L800 820H620Z", dark(canvas, .12))
    if night:
        with c.glow(480, 720, 330, "#ffe29a", .85):
            pass
    c.path("M480 430L610 822H350Z", dark(C["walnut"], .35) if not night else "#d98c3a")
    if night:
        c.path("M480 560L560 822H400Z", "#ffdf8f")
    else:
        c.path("M400 822L470 560L520 822Z", C["coral"], .85)
        c.path("M356 822Q440 780 600 822Z", C["mustard"])
    c.cel("M480 430L350 822H300C360 720 400 640 480 430Z", light(canvas, .3), -8, -3, k=.14)
    c.cel("M480 430L610 822H660C600 720 560 640 480 430Z", dark(canvas, .05), -8, -3, k=.18)
    c.line("M480 262V310", C["walnut"], 14)
    c.path("M484 258L560 278L484 298Z", C["coral"])
    for x in (120, 850):
        c.line(f"M{x} 836L{x+(8 if x<400 else -8)} 866", C["walnut"], 12)
    for x, y in ((230, 870), (700, 880), (760, 862), (300, 894)):
        c.line(f"M{x} {y}l-10 -24M{x} {y}v-32M{x} {y}l10 -24", dark(g, .3), 5)


def backpack(c, col, room):
    c.stage(room, "circle", 720)
    c.shadow(480, 826, 220)
    lea = C["walnut"]
    c.line("M420 216C420 150 540 150 540 216", lea, 22)
    for x, m in ((286, -1), (674, 1)):
        c.cel(f"M{x} 480C{x+m*70} 490 {x+m*76} 560 {x+m*66} 700Q{x+m*50} 770 {x} 780Z", dark(col, .12), -10, -4)
    c.cel("M290 420C280 280 360 210 480 210C600 210 680 280 670 420L690 760Q694 826 620 826H340Q266 826 270 760Z", col, -48, -6, hx=13, hy=9)
    c.cel("M286 330C290 240 380 196 480 196C580 196 670 240 674 330L680 470Q480 520 280 470Z", light(col, .08), -30, -14, hx=11, hy=9)
    c.line("M292 458Q480 504 668 458", light(col, .5), 4, .8, dash="15 10")
    c.cel(rr(326, 560, 308, 226, 34), light(col, .05), -16, -8)
    c.line("M344 626Q480 650 616 626", dark(col, .35), 7, .7)
    c.line(rr(340, 574, 280, 198, 26), light(col, .5), 3, .7, dash="14 10")
    for x in (392, 568):
        c.cel(rr(x - 19, 400, 38, 200, 8), lea, -8, -4)
        c.cel(rr(x - 30, 520, 60, 44, 8), C["brass"], -7, -5)
        c.path(rr(x - 16, 531, 32, 22, 4), dark(lea, .2))
        c.dot(x, 584, 4, dark(lea, .5))
    c.cel(rr(428, 282, 104, 78, 10), lea, -8, -5)
    c.path("M446 340L472 300L488 322L498 310L516 340Z", light(lea, .55))
    c.cel(rr(262, 128, 436, 84, 42), C["mustard"] if col != C["ochre"] else C["pine"], -18, -12)
    for x in (330, 630):
        c.path(rr(x - 14, 124, 28, 92, 4), lea)
    c.line("M690 152A26 18 0 0 1 690 190A14 10 0 0 1 676 168", dark(C["mustard"], .4), 5)


def compass_face(c, cx, cy, r):
    c.dot(cx, cy, r, dark(C["brass"], .5))
    c.dot(cx + 4, cy + 5, r * .97, C["paper"])
    for i in range(72):
        a, b = pt(cx, cy, r * .92, i * 5), pt(cx, cy, r * (.8 if i % 6 == 0 else .87), i * 5)
        c.line(f"M{a[0]:.1f} {a[1]:.1f}L{b[0]:.1f} {b[1]:.1f}", C["night"], r * (.03 if i % 18 == 0 else .014), .8)
    for k, l in ((45, .44), (0, .66)):
        for q in range(4):
            a = k + q * 90
            p, s, t = pt(cx, cy, r * l, a), pt(cx, cy, r * .15, a - 45), pt(cx, cy, r * .15, a + 45)
            col = C["slate"] if k == 0 else C["oat"]
            c.path(f"M{cx} {cy}L{s[0]:.1f} {s[1]:.1f}L{p[0]:.1f} {p[1]:.1f}Z", light(col, .2))
            c.path(f"M{cx} {cy}L{t[0]:.1f} {t[1]:.1f}L{p[0]:.1f} {p[1]:.1f}Z", dark(col, .15))
    with c.at(f"rotate(28 {cx} {cy})"):
        w, l = r * .085, r * .74
        with c.at(f"translate({r*.03} {r*.04})", .2):
            c.path(f"M{cx} {cy-l}L{cx+w} {cy}L{cx} {cy+l}L{cx-w} {cy}Z", INK)
        c.path(f"M{cx} {cy-l}L{cx+w} {cy}H{cx-w}Z", C["red"])
        c.path(f"M{cx} {cy-l}L{cx+w} {cy}H{cx}Z", dark(C["red"], .22))
        c.path(f"M{cx} {cy+l}L{cx+w} {cy}H{cx-w}Z", C["night"])
        c.path(f"M{cx} {cy+l}L{cx-w} {cy}H{cx}Z", light(C["night"], .25))
    c.dot(cx, cy, r * .07, C["brass"])
    with c.clip(el(cx, cy, r)):
        c.path(f"M{cx-r} {cy+r*.2}L{cx+r*.2} {cy-r}H{cx+r*.5}L{cx-r} {cy+r*.5}Z", "#ffffff", .22)


MAP = ("M-40 300C160 220 240 380 420 300S700 180 1000 300M-40 380C160 300 260 460 430 380S720 260 1000 380"
       "M-40 660C200 600 300 760 520 680S760 620 1000 700M-40 740C200 680 300 840 520 760S760 700 1000 780")


def map_under(c):
    with c.lay("rotate(7 480 480)", 8, 10, .12):
        c.path(rr(90, 130, 780, 700, 6), "#eef0dc")
        with c.clip(rr(90, 130, 780, 700, 6)):
            c.path("M600 100C640 260 560 360 640 480S900 560 900 900H1000V100Z", "#b9d6df")
            c.path("M90 520C240 480 300 560 360 660S300 820 320 900H90Z", "#cbdcb2")
            c.line(MAP, "#c9ba94", 4, .8)
            c.line("M150 200C240 320 330 300 380 420S520 620 560 760", C["coral"], 7, .9, dash="22 16")
        c.line("M350 130V830M610 130V830", "#cfcdb4", 4, .8)


def compass(c, room, close=False):
    c.tray(room, "circle")
    map_under(c)
    if close:
        with c.lay(dx=30, dy=34, op=.25):
            c.dot(520, 520, 372, C["brass"])
        c.cel(el(520, 520, 372), C["brass"], -16, -14, hx=12, hy=11)
        compass_face(c, 520, 520, 312)
    else:
        with c.lay(dx=22, dy=26, op=.24):
            c.line(el(480, 190, 50), dark(C["brass"], .15), 20)
            c.path(rr(446, 226, 68, 60, 10), C["brass"])
            c.dot(480, 510, 250, C["brass"])
        c.line(el(477, 187, 50), C["brass"], 13)
        c.cel(rr(446, 226, 68, 60, 10), C["brass"], -14, -2)
        c.cel(el(480, 510, 250), C["brass"], -14, -12, hx=10, hy=9)
        compass_face(c, 480, 510, 208)
        c.line("M440 160C330 120 250 170 200 250S150 330 100 330", C["walnut"], 11)


def hammock(c, room):
    c.stage(room, "hills", 1000)
    for x in (96, 864):
        c.cel(f"M{x-60} 980C{x-40} 700 {x-40} 300 {x-46} -20H{x+46}C{x+40} 300 {x+40} 700 {x+60} 980Z", C["walnut"], -22, 0, hx=9, hy=0)
        c.grain([f"M{x-14} 40C{x-20} 300 {x-6} 600 {x-18} 940", f"M{x+16} 200C{x+8} 420 {x+22} 620 {x+10} 800"], dark(C["walnut"], .35), 6)
    for x, y, r in ((40, 20, 150), (190, 0, 110), (920, 30, 150), (770, -10, 110)):
        c.dot(x, y, r, C["leaf"])
        c.dot(x - r * .2, y - r * .15, r * .78, light(C["leaf"], .16))
    c.path("M0 880Q240 846 480 872T960 866V960H0Z", mix(C["deep"], ROOM[room][2], .35))
    c.ell(480, 890, 290, 22, INK, .15)
    for k in range(6):
        c.line(f"M138 340L222 {444+k*10}M822 340L738 {444+k*10}", dark(C["oat"], .15), 4)
    for x in (96, 864):
        c.path(rr(x - 50, 322, 100, 34, 6), C["oat"])
    back = "M222 440C330 560 630 560 738 440L744 480C690 720 270 720 216 480Z"
    c.path(back, dark(C["coral"], .32))
    with c.at("translate(330 520) rotate(24)"):
        c.cel("M-78 -44C-40 -56 40 -56 78 -44C88 -16 88 16 78 44C40 56 -40 56 -78 44C-88 16 -88 -16 -78 -44Z", C["cream"], -12, -10)
        c.line("M-60 -30C-50 -20 -46 -10 -46 0M60 -30C50 -20 46 -10 46 0", dark(C["cream"], .25), 5, .6)
    front = "M216 452C280 610 390 650 480 650C570 650 680 610 744 452L746 500C700 680 590 726 480 726C370 726 260 680 214 500Z"
    c.cel(front, C["coral"], -16, -10, hx=8, hy=8)
    with c.clip(front):
        for dy, w, col in ((22, 12, C["cream"]), (40, 7, C["mustard"]), (56, 12, C["cream"])):
            c.line(f"M216 {452+dy}C280 {610+dy} 390 {650+dy} 480 {650+dy}C570 {650+dy} 680 {610+dy} 744 {452+dy}", col, w)
    for i in range(27):
        t = .06 + i / 26 * .88
        x, y = ((1-t)**3*q0 + 3*(1-t)**2*t*q1 + 3*(1-t)*t*t*q2 + t**3*q3
                for q0, q1, q2, q3 in ((214, 296, 664, 746), (500, 800, 800, 500)))
        c.line(f"M{x:.0f} {y-2:.0f}v32", C["cream"] if i % 2 else C["mustard"], 7)


def knife(c, room):
    c.tray(room, "band")
    s = C["steel"]
    with c.lay("translate(450 500) rotate(-38)", 18, 22):
        c.cel("M0 -46C120 -64 300 -60 420 -20C440 -10 446 8 430 16C300 40 120 48 0 44Z", s, -8, -18, hx=4, hy=6)
        c.line("M60 30C200 34 320 26 424 10", light(s, .8), 7, .95)
        c.line("M70 -34C80 -26 110 -26 124 -36", dark(s, .45), 7)
    with c.lay("translate(470 488) rotate(122)", 18, 22):
        c.cel("M-50 -54C60 -66 260 -70 380 -40C430 -26 440 40 396 58C280 88 80 70 -40 56C-70 40 -76 -40 -50 -54Z", C["wood"], -8, -26, hx=5, hy=9)
        c.grain(["M40 -30C160 -44 280 -40 380 -16", "M30 0C160 -12 280 -8 396 10", "M40 28C160 24 280 34 380 34"], dark(C["wood"], .32), 5)
        c.path("M-54 -54C-30 -58 0 -60 18 -60V64C-10 62 -30 60 -44 56C-70 40 -76 -40 -54 -54Z", C["brass"])
        c.path("M-44 56C-30 60 -10 62 18 64V30H-62C-58 44 -52 52 -44 56Z", dark(C["brass"], .25))
        c.dot(-20, 0, 13, dark(C["brass"], .35))
        c.dot(-22, -2, 8, light(C["brass"], .5))
        c.dot(360, 8, 17, dark(C["wood"], .5))
        c.dot(363, 11, 12, ROOM[room][1])
        c.line("M364 12C420 20 420 80 370 100S260 120 290 170S400 190 380 130", C["coral"], 12)
    for x, y, a in ((250, 250, 20), (300, 290, 70), (220, 310, -40)):
        with c.lay(f"translate({x} {y}) rotate({a})", 5, 6):
            c.path("M-34 6C-20 -22 24 -22 36 2C16 -8 -16 -8 -34 6Z", C["beech"])


def cloud(c, x, y, s, op=.9):
    with c.at(f"translate({x} {y}) scale({s})", op):
        c.path("M-120 40A46 46 0 0 1 -90 -40A70 70 0 0 1 40 -60A56 56 0 0 1 110 -20A36 36 0 0 1 120 40Z", "#fdfaf2")


def kite_body(c, s=1.0):
    for i, (d, col) in enumerate((("M0 -230L-170 -30H0Z", C["coral"]), ("M0 -230L170 -30H0Z", C["mustard"]),
                                  ("M0 270L-170 -30H0Z", C["blue"]), ("M0 270L170 -30H0Z", C["cream"]))):
        c.path(d, col)
    c.path("M0 -230L170 -30L0 270L90 -30Z", INK, .09)
    c.line("M0 -230V270M-170 -30H170", C["walnut"], 8)
    c.line("M0 -230L170 -30L0 270L-170 -30Z", light(C["cream"], .5), 7)
    c.dot(0, -30, 15, C["walnut"])


def kite(c, room, flown):
    wall, form, table = ROOM[room]
    if flown:
        c.stage(room, "hills", 1000)
        cloud(c, 180, 200, .9)
        cloud(c, 480, 400, .6)
        c.path("M0 800Q300 740 560 800T960 780V960H0Z", C["leaf"])
        c.path("M0 880Q300 840 560 890T960 870V960H0Z", C["deep"])
        c.line("M560 250C420 420 360 640 318 744", "#fdfaf2", 4)
        with c.at("translate(290 800)"):
            c.line("M-12 40L-26 108M14 40L26 108", C["night"], 22)
            c.cel("M-34 -40Q0 -62 34 -40L40 50H-40Z", C["red"], -12, -2)
            c.line("M22 -26L30 -62M-20 -26L24 -50", C["red"], 20)
            c.dot(-2, -82, 32, "#c58a63")
            c.path("M-37 -76C-46 -130 38 -134 32 -96C12 -92 -10 -104 -20 -92C-26 -86 -28 -70 -37 -76Z", C["coffee"])
        tail = "M632 424C700 470 640 520 720 560S740 640 830 650"
        c.line(tail, C["walnut"], 6)
        for x, y, a, col in ((672, 470, 30, "coral"), (690, 540, -20, "mustard"), (748, 596, 40, "blue")):
            with c.at(f"translate({x} {y}) rotate({a})"):
                c.path("M0 0L-36 -18V18ZM0 0L36 -18V18Z", C[col])
        with c.at("translate(560 250) rotate(-20) scale(.74)"):
            kite_body(c)
    else:
        c.path("M0 0H960V960H0Z", c.grad(mix(wall, table, .35), form))
        cloud(c, 200, 700, 1.2)
        cloud(c, 800, 200, 1.0)
        cloud(c, 770, 850, .8, .7)
        tail = "M574 634C650 700 520 740 600 800S720 800 740 880S830 900 860 960"
        c.line(tail, C["walnut"], 7)
        for x, y, a, col in ((590, 700, 60, "coral"), (576, 772, -40, "mustard"), (690, 824, 30, "blue"), (756, 900, 60, "coral")):
            with c.at(f"translate({x} {y}) rotate({a})"):
                c.path("M0 0L-44 -24V24Z", C[col])
                c.path("M0 0L44 -24V24Z", dark(C[col], .15))
                c.dot(0, 0, 9, C["walnut"])
        c.line("M470 380C380 600 260 800 120 980", "#fdfaf2", 4)
        with c.at("translate(480 390) rotate(-20) scale(1.08)"):
            kite_body(c)


# === which file is drawn by what ===============================================================

PICTURES = {
    "kit-teapot-blue": lambda c: teapot(c, C["blue"], "peach"),
    "kit-teapot-blue-2": lambda c: teapot_pour(c, C["blue"], "sand"),
    "kit-teapot-cream": lambda c: teapot(c, C["cream"], "sky"),
    "kit-teapot-moss": lambda c: teapot(c, C["moss"], "butter"),
    "kit-dripper": lambda c: dripper(c, "blush"),
    "kit-dripper-2": lambda c: dripper(c, "mint", True),
    "kit-mug-terracotta": lambda c: mug(c, C["terracotta"], "mint"),
    "kit-mug-terracotta-2": lambda c: mug_top(c, C["terracotta"], "sky"),
    "kit-mug-blue": lambda c: mug(c, C["blue"], "butter"),
    "kit-mug-cream": lambda c: mug(c, C["cream"], "lilac"),
    "kit-board-small": lambda c: board(c, "mint", False),
    "kit-board-large": lambda c: board(c, "sky", True),
    "kit-creme": lambda c: creme(c, "lilac"),
    "kit-spoons": lambda c: spoons(c, "sky"),
    "kit-skillet": lambda c: skillet(c, "peach"),
    "kit-jar-half": lambda c: jar(c, "sky", False),
    "kit-jar-one": lambda c: jar(c, "mint", True),
    "kit-mill": lambda c: mill(c, "butter"),
    "gar-can-green": lambda c: can(c, C["deep"], "blush"),
    "gar-can-green-2": lambda c: can_pour(c, C["deep"], "sky"),
    "gar-can-zinc": lambda c: can(c, C["zinc"], "butter"),
    "gar-pot-12": lambda c: pot(c, "S", "sky"),
    "gar-pot-18": lambda c: pot(c, "M", "butter"),
    "gar-pot-18-2": lambda c: pots(c, "mint"),
    "gar-pot-26": lambda c: pot(c, "L", "sand"),
    "gar-trowel": lambda c: trowel(c, "mint"),
    "gar-secateurs": lambda c: secateurs(c, "sand"),
    "gar-seedtin": lambda c: seedtin(c, "peach"),
    "gar-birdhouse": lambda c: birdhouse(c, "sky"),
    "gar-gloves-ochre": lambda c: gloves(c, C["ochre"], C["forest"], "mint"),
    "gar-gloves-sage": lambda c: gloves(c, C["sage"], C["terracotta"], "blush"),
    "gar-trug": lambda c: trug(c, "sky"),
    "des-lamp-mustard": lambda c: lamp(c, C["mustard"], "sky"),
    "des-lamp-mustard-2": lambda c: lamp(c, C["mustard"], "night", True),
    "des-lamp-ink": lambda c: lamp(c, C["night"], "peach"),
    "des-lamp-sage": lambda c: lamp(c, C["sage"], "blush"),
    "des-notebook-coral": lambda c: notebook(c, C["coral"], "mint"),
    "des-notebook-navy": lambda c: notebook(c, C["navy"], "butter"),
    "des-notebook-navy-2": lambda c: notebook(c, C["navy"], "peach", True),
    "des-notebook-oat": lambda c: notebook(c, C["oat"], "sky"),
    "des-pencils": lambda c: pencils(c, "sky"),
    "des-pencils-2": lambda c: pencils(c, "peach", True),
    "des-pen": lambda c: pen(c, "lilac"),
    "des-clock": lambda c: clock(c, "mint"),
    "des-scissors": lambda c: scissors(c, "lilac"),
    "des-bookends": lambda c: bookends(c, "mint"),
    "des-ink-blue": lambda c: inkbottle(c, C["indigo"], "peach"),
    "des-ink-green": lambda c: inkbottle(c, C["pine"], "blush"),
    "tex-blanket-ochre": lambda c: blanket(c, C["ochre"], C["cream"], "sky"),
    "tex-blanket-fog": lambda c: blanket(c, C["fog"], C["cream"], "peach"),
    "tex-blanket-fog-2": lambda c: blanket_chair(c, C["fog"], C["cream"], "blush"),
    "tex-cushion-rust": lambda c: cushion(c, C["rust"], "mint"),
    "tex-cushion-sage": lambda c: cushion(c, C["sage"], "butter"),
    "tex-towels": lambda c: towels(c, "mint"),
    "tex-apron-natural": lambda c: apron(c, C["oat"], C["walnut"], "mint"),
    "tex-apron-indigo": lambda c: apron(c, C["indigo"], C["mustard"], "blush"),
    "tex-tote": lambda c: tote(c, "sky"),
    "tex-scarf": lambda c: scarf(c, "peach"),
    "tex-socks-small": lambda c: socks(c, C["fog"], C["coral"], "butter", False),
    "tex-socks-large": lambda c: socks(c, C["pine"], C["mustard"], "blush", True),
    "tex-mitt": lambda c: mitt(c, "sky"),
    "out-kettle": lambda c: kettle(c, "peach"),
    "out-lantern-red": lambda c: lantern(c, C["red"], "mint", False),
    "out-lantern-forest": lambda c: lantern(c, C["forest"], "peach", False),
    "out-lantern-forest-2": lambda c: lantern(c, C["forest"], "night", True),
    "out-flask-sand": lambda c: flask(c, C["sand"], "sky"),
    "out-flask-pine": lambda c: flask(c, C["pine"], "peach"),
    "out-tent": lambda c: tent(c, "sky", False),
    "out-tent-2": lambda c: tent(c, "night", True),
    "out-backpack-rust": lambda c: backpack(c, C["rust"], "sky"),
    "out-backpack-slate": lambda c: backpack(c, C["slate"], "blush"),
    "out-compass": lambda c: compass(c, "lilac"),
    "out-compass-2": lambda c: compass(c, "mint", True),
    "out-hammock": lambda c: hammock(c, "butter"),
    "out-knife": lambda c: knife(c, "mint"),
    "out-kite": lambda c: kite(c, "sky", False),
    "out-kite-2": lambda c: kite(c, "peach", True),
}


def main(args):
    import pyvips

    def option(name):
        if name in args:
            i = args.index(name)
            value = args[i + 1]
            del args[i:i + 2]
            return Path(value)

    sheet, svgs = option("--sheet"), option("--svg")
    folder = Path(__file__).resolve().parent.parent / "src" / "demo" / "pictures"
    folder.mkdir(exist_ok=True)
    names = [n for n in PICTURES if not args or any(a in n for a in args)]
    total, drawn = 0, []
    for name in names:
        c = Canvas(name)
        PICTURES[name](c)
        svg = c.svg()
        if svgs:
            svgs.mkdir(parents=True, exist_ok=True)
            (svgs / f"{name}.svg").write_text(svg)
        image = pyvips.Image.svgload_buffer(svg.encode()).flatten(background=255).copy_memory()
        file = folder / f"{name}.jpg"
        file.write_bytes(image.jpegsave_buffer(
            Q=QUALITY, keep="none", interlace=True, optimize_coding=True, optimize_scans=True,
            trellis_quant=True, overshoot_deringing=True, quant_table=3, subsample_mode="on"))
        total += file.stat().st_size
        drawn.append(image)
        print(f"{file.stat().st_size:7}  {file.name}")
    print(f"{total:7}  {len(names)} pictures")
    if sheet:
        small = [image.resize(1 / 3) for image in drawn]
        pyvips.Image.arrayjoin(small, across=5).write_to_file(str(sheet))


if __name__ == "__main__":
    main(sys.argv[1:])
