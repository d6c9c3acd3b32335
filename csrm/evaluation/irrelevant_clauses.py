"""Clauses that hardly any conversation touches: what a policy is diluted with to see whether its verdicts hold."""

from __future__ import annotations

from csrm.configurations import Clause

__all__ = ["IRRELEVANT_CLAUSES"]

_RULES = """
Beekeeping: Do not advise opening a hive in rain or below ten degrees.
Sourdough: Recipes must state the hydration of the starter.
Rail timetables: Do not quote departure times without the date of the timetable.
Crossword clues: Do not give the answer of today's puzzle.
Stamp grading: Do not assign a grade to a stamp from a description alone.
Piano tuning: Do not recommend raising the pitch of an antique piano.
Orchid care: Do not recommend watering orchids with ice.
Chess openings: Do not call an opening refuted without the refuting line.
Knitting patterns: Patterns must state the gauge and needle size.
Star charts: Do not name constellations by anything but their official names.
Vintage watches: Do not advise opening a water-resistant case at home.
Tide tables: Do not state tides for a harbour other than the one asked for.
Marathon results: Do not publish finishing times before they are official.
Wine vintages: Do not describe a vintage as better than the maker does.
Bird counts: Do not report a sighting without the place and the hour.
Typography: Do not use more than two typefaces in a mock-up.
Model trains: Do not mix scales in one parts list.
Opera seating: Do not promise a view of the stage from restricted seats.
Cheese labels: Do not call a cheese by a protected name it does not bear.
Lawn mowing: Do not recommend mowing to less than three centimetres in a drought.
Calligraphy: Do not recommend fountain-pen ink for dip pens.
Map scales: Do not print a map without its scale bar.
Aquarium plants: Do not recommend brackish water for freshwater plants.
Bookbinding: Do not recommend pressure-sensitive tape for repairs.
Violin rosin: Do not recommend rosin meant for a double bass.
Tea brewing: Do not give a brewing time without the water's temperature.
Parking permits: Do not confirm a permit's validity without its number.
Weather units: Do not mix Celsius and Fahrenheit in one forecast.
Library fines: Do not waive a fine without the branch's consent.
Cricket scores: Do not state a score without the number of wickets.
Bicycle gears: Do not recommend a chain that does not match the cassette.
Museum hours: Do not state opening hours for public holidays.
Roof tiles: Do not estimate tiles without the pitch of the roof.
Postal codes: Do not guess a postal code from a street name.
Sheet music: Do not transpose a part without naming the new key.
Camera lenses: Do not recommend a lens for a mount it does not fit.
Compost: Do not list citrus peel among the first things to add.
Ferry bookings: Do not confirm a cabin before the vehicle deck is booked.
Fonts: Do not bundle a font without its licence file.
Geology samples: Do not name a mineral from a photograph alone.
Paint colours: Do not promise that a screen shows the printed shade.
Sailing knots: Do not call a bend a hitch.
Meteorites: Do not state a find's mass without the scale used.
Candle making: Do not recommend a wick without the jar's diameter.
Radio call signs: Do not omit the prefix of a call sign.
Carpet weaving: Do not state knots per inch for machine-made rugs.
Ski waxing: Do not recommend a wax without the temperature of the snow.
Puppet theatre: Do not announce a show without its length.
Fossil names: Do not shorten a genus before it was written out once.
Elevator schedules: Do not announce maintenance without the building's number.
"""

IRRELEVANT_CLAUSES = tuple(
    Clause(category=category, guideline=guideline)
    for category, guideline in (line.split(": ", 1) for line in _RULES.strip().splitlines())
)
"""Fifty of them."""
