"""Words that may follow a number without changing it: units of measure, currencies, and what is counted.

The list is closed: ``42 or more``, ``3 squared`` and ``1 million`` must not be taken for 42, 3 and 1.
"""

from __future__ import annotations

_SAME = """
cm centimeter centimeters centimetre centimetres
mm millimeter millimeters millimetre millimetres
m meter meters metre metres
km kilometer kilometers kilometre kilometres
in inch inches
ft foot feet
yd yard yards
mi mile miles
mph miles_per_hour
km/h kph kilometers_per_hour
m/s meters_per_second
ft/s feet_per_second
g gram grams
kg kilogram kilograms
lb lbs pound pounds
oz ounce ounces
ton tons
l liter liters litre litres
ml milliliter milliliters
gallon gallons
cup cups
s sec secs second seconds
min mins minute minutes
h hr hrs hour hours
day days
week weeks
month months
year years year_old years_old
degree degrees
radian radians rad
dollar dollars usd
cent cents
percent percents pct
unit units
point points
square_unit square_units sq_units units^2 unit^2
cubic_unit cubic_units units^3 unit^3
square_cm sq_cm cm^2 square_centimeters square_centimeter centimeters^2
square_m sq_m m^2 square_meters square_meter meters^2
square_mm mm^2 square_millimeters
square_km km^2 square_kilometers
square_in sq_in in^2 square_inches square_inch inches^2
square_ft sq_ft ft^2 square_feet square_foot feet^2
square_yd square_yards square_yard yards^2
square_mi square_miles square_mile
cubic_cm cm^3 cubic_centimeters centimeters^3
cubic_m m^3 cubic_meters meters^3
cubic_in in^3 cubic_inches cubic_inch inches^3
cubic_ft ft^3 cubic_feet cubic_foot feet^3
cubic_yd cubic_yards
"""
_COUNTED = """
apples apple balls ball bags bag blocks block books book boxes box boys boy bushels cakes candies candy cards card cars
cats children chickens circles coins coin combinations cookies cookie customers digits digit dimes divisors dogs edges
elements employees eggs factors faces flowers friends games game girls guests handshakes hits houses integers integer
intersections kids kittens letters lines marbles marble matches members men numbers orders outfits outcomes pages page
pairs paintings paths pencils pencil pennies people person persons pieces piece pizzas players polygons pounds primes
problems questions rectangles regions roots rows sandwiches sheep shirts sides slices solutions solution songs squares
states steps stickers students student subsets symbols teachers teams tiles toys trees triangles turns values
vertices ways way women words workers
"""  # "times", "halves", "dozens", "tens", "pairs of" and the like change the value and are not here

_CANONICAL = {form: line.split()[0] for line in _SAME.splitlines() if line for form in line.split()}
_CANONICAL |= {word: word for word in _COUNTED.split()}
_BARE = frozenset(form for form in _CANONICAL if form.isalpha() and len(form) > 1) - {"rad", "sec"}


def is_unit(word: str) -> bool:
    r"""Whether a bare word (outside ``\text``) of two letters or more is a unit."""
    return word.lower() in _BARE


def canonical_unit(text: str) -> tuple[str, bool]:
    """One name for all spellings of a unit, and whether the unit is known.

    Example:
        >>> canonical_unit("Square Inches."), canonical_unit("in^2"), canonical_unit("or more")
        (('square_in', True), ('square_in', True), ('or_more', False))
    """
    name = "_".join(text.lower().rstrip(".").replace("$", "").split())
    return (_CANONICAL[name], True) if name in _CANONICAL else (name, False)
