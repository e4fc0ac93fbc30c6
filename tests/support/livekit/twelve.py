"""Two minutes of twelve participants: turns, overlaps, mutes, rejoins, track changes, and silence."""

from tests.support.audio.conversation import Does, Phrase, Says, Script

TRIED = Phrase("beckett", 352, 1216, "tried")
FAILED = Phrase("beckett", 1888, 2816, "failed")
MATTER = Phrase("beckett", 3552, 4224, "matter")
AGAIN = Phrase("beckett", 4896, 5600, "again")
BETTER = Phrase("beckett", 8160, 8896, "better")
WISDOM = Phrase("two_cities", 1216, 12864, "wisdom")
SEASON = Phrase("two_cities", 13472, 16768, "season")
DESPAIR = Phrase("two_cities", 17568, 20544, "despair")
HEAVEN = Phrase("two_cities", 21248, 28352, "heaven")
PERIOD = Phrase("two_cities", 29120, 41728, "period")

_READS = {
    "beckett": ("ada", "ben", "cleo", "dan", "kim", "lou"),
    "two_cities": ("eva", "finn", "gus", "hana", "ivo", "jane"),
}
RECORDING = {who: recording for recording, readers in _READS.items() for who in readers}
"""The recording for each participant's words."""

BY_PHONE = "ivo"
"""The participants who join by SIP. lou never says a word."""

TWELVE = Script(
    cast=tuple(sorted(RECORDING)),
    end_s=120.0,
    lines=(
        # one after the other
        Says(4.0, "ada", TRIED),
        Says(6.0, "ben", FAILED),
        Says(8.0, "cleo", MATTER),
        Says(10.0, "dan", AGAIN),
        Says(12.0, "eva", SEASON),
        Says(16.5, "finn", DESPAIR),
        # two at once, twice, while gus goes on
        Says(20.5, "gus", HEAVEN),
        Says(21.3, "eva", SEASON),
        Says(25.9, "finn", DESPAIR),
        # three at once, then four
        Says(30.3, "hana", WISDOM),
        Says(31.4, "eva", DESPAIR),
        Says(32.3, "ivo", SEASON),
        Says(37.1, "eva", SEASON),
        Says(37.7, "finn", DESPAIR),
        Says(38.3, "gus", SEASON),
        # jane mutes in mid-word and says the rest muted; kim talks while muted all the time
        Does(41.0, "kim", "mutes"),
        Says(43.4, "jane", PERIOD),
        Says(44.0, "kim", TRIED),
        Says(46.0, "kim", MATTER),
        Does(46.5, "jane", "mutes"),
        Says(48.5, "ben", TRIED),
        # gus leaves in mid-word, and rejoins
        Says(50.5, "gus", HEAVEN),
        Does(53.5, "gus", "leaves"),
        Does(56.0, "gus", "returns"),
        Does(57.0, "jane", "unmutes"),
        Says(59.0, "jane", SEASON),
        Does(62.0, "kim", "unmutes"),
        Says(63.5, "gus", DESPAIR),
        Says(67.5, "kim", BETTER),
        # finn changes the track in mid-word, ivo between two words
        Says(69.5, "finn", HEAVEN),
        Does(72.5, "finn", "changes track"),
        Says(77.5, "finn", SEASON),
        Does(79.0, "ivo", "changes track"),
        Says(83.0, "ivo", DESPAIR),
        Says(87.0, "ada", MATTER),
        Says(89.0, "ben", BETTER),
        # those who were muted, gone or on another track speak at once with others
        Says(91.0, "hana", HEAVEN),
        Says(92.5, "ivo", SEASON),
        Says(99.5, "eva", WISDOM),
        Says(100.5, "jane", DESPAIR),
        Says(105.0, "finn", SEASON),
        Says(106.0, "gus", DESPAIR),
        Says(112.6, "cleo", FAILED),
        Says(114.9, "dan", TRIED),
        # the room is closed while hana speaks
        Says(117.0, "hana", PERIOD),
    ),
)
