"""Emotion lexicons: words that name or directly express an emotion, and their counts in a text.

`own_lexicon()` is a small list of our own, written for screening vignettes: words that name one of
the eight emotions, the state of having it, or a reaction defined by it, with their inflections. It
is no norm, has not been rated by anybody, and is far smaller than the NRC Emotion Lexicon (Mohammad
and Turney 2013, 14,182 words rated by crowd workers). That one may not be redistributed;
`read_nrc` reads the user's copy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType

from affectlens.data.errors import StimulusError
from affectlens.data.table_files import read_text
from affectlens.data.taxonomy import EMOTION_WORDS

_MORE: Mapping[str, str] = {
    "rage": """
        aggravated animosity annoy annoyance annoyed annoying bitter bitterly bitterness enrage
        enraging exasperated exasperation frustrating fume fumed fuming furiously furor hateful
        hostile incensed indignant indignation infuriate infuriated infuriating irate irritate
        irritated irritating irritation jealous jealousy livid madden maddened maddening malice
        offended outraging raged raging resent resented resentful seethe seethed seething spite
        spiteful vengeance vengeful vexed wrathful
        """,
    "grief": """
        agony anguish anguished bereaved bereavement bereft dejected dejection depressing desolate
        desolation despaired despairing despondent devastating devastation disconsolate dismal
        dispirited distraught forlorn gloom gloomy grieve grieved grieves grievous heartache
        heartbreaking hopeless hopelessly inconsolable lament lamented loneliness lonely
        melancholy miserable miserably mourn mourned mourner mourners mournful mourns regret
        regretted remorse sadden saddened saddening sadder sob sobbed sobbing sorrowful
        sorrowfully sorrows sorry tearful tears unhappiness unhappy weep weeping wept woe wretched
        """,
    "terror": """
        agitated alarm alarmed alarming anxieties anxiously apprehension apprehensive awful
        distress distressed distressing dreaded dreadful dreading dreads feared fearfully fearing
        fearless fears fearsome foreboding frantic frantically frighten frightening frightens
        frightful horrible horribly horrific horrified horrify horrifying horrors hysterical
        jittery menace menacing nervous nervously nervousness panicked panicking panicky panics
        petrified petrifying scare scares scaring spooked tense tension terrible terribly
        terrifies terrify terrors threatened threatening timid trembling trepidation uneasiness
        uneasy worried worries worry worrying
        """,
    "ecstasy": """
        bliss blissful blissfully cheer cheerful cheerfully cheery contented contentment
        delightful delighting delights ecstatically elated elation enjoy enjoyed enjoying
        enjoyment enthralled enthusiasm enthusiastic euphoric excitedly exciting exhilarated
        exhilarating exhilaration exult exultant exultation exulted glad gladly gladness glee
        gleeful happier happiest happily heavenly joyfully joyous joyously jubilant jubilation
        love loved lovely loving merry pleasant pleased pleasing pleasures rapture rapturous
        rejoice rejoiced rejoicing relief relieved thrill thrilling thrills triumphant
        triumphantly wonderful wonderfully
        """,
    "loathing": """
        abhor abhorred abhorrence abhorrent abomination appalled appalling contemptible
        contemptuous despicable despise despised despises detest detestable detested detests
        disgraceful disgusts dislike disliked gag gagged gagging grossed hated hates hating horrid
        loathe loathed loathes loathsome nauseate nauseated nauseating nauseous odious offensive
        putrid queasy repelled repellent repugnance repugnant repulse repulsion retch retched
        retching revolted revolts scorn scorned scornful sicken sickening sickens squeamish vile
        """,
    "amazement": """
        aghast amaze amazes amazingly astonish astonishes astonishing astonishingly astound
        astounding awed awestruck baffled bewildered bewildering bewilderment breathtaking
        dumbfounded dumbstruck flabbergasted gobsmacked incredible incredibly incredulity
        incredulous incredulously marvel marveled marvelled marvelling marvellous marvelous
        miracle miraculous shocking shockingly speechless startle startling stun stunning
        stupefied surprises surprising surprisingly terrific thunderstruck unbelievable
        unbelievably wondered wondering wonders wondrous
        """,
    "admiration": """
        admirable admirably admired admirer admirers admires admiring admiringly adore adored
        adoring appreciate appreciated appreciates appreciative dazzled devoted esteemed exemplary
        fond fondness grateful gratefully heartening hero heroes heroic heroism honored honour
        honoured idolised idolized impressive inspire inspires inspiring noble proudly respected
        respectful respectfully respecting revere revered reverent reverential reverently thankful
        trusted trusting trusts venerate venerated veneration worship worshipped worshipping
        """,
    "vigilance": """
        anticipate anticipated anticipates anticipating anticipatory attentively cautiously
        distrust distrustful eager eagerly expectant expectantly guardedly mistrust mistrustful
        suspect suspected suspects suspense suspicions suspiciously vigil vigilantly warily
        wariness watchfully watchfulness
        """,
}

_GENERAL = """
    ashamed bored boredom calm calmly desperate desperately disappointed disappointing
    disappointment dismay dismayed embarrassed embarrassment emotion emotional emotionally
    emotions envy feeling feelings guilt guilty hope hoped hopeful hopes humiliated humiliation
    longing moody overwhelmed overwhelming passion passionate peaceful relaxed serene serenity
    shame shameful stress stressed stressful torment tormented upset upsetting yearning
    """

GENERAL = "general"
"""The key of words that name emotion without naming one of the eight."""


@dataclass(frozen=True)
class EmotionLexicon:
    """Words of each category; a word may stand in several categories of a foreign lexicon.

    `name` says where the list comes from; `words` maps a category to lower-case words.
    """

    name: str
    words: Mapping[str, frozenset[str]]

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The categories, in order."""
        return tuple(self.words)

    @cached_property
    def index(self) -> Mapping[str, tuple[str, ...]]:
        """Categories of every word."""
        found: dict[str, tuple[str, ...]] = {}
        for category, words in self.words.items():
            for word in words:
                found[word] = (*found.get(word, ()), category)
        return MappingProxyType(found)

    def hits(self, tokens: Sequence[str]) -> tuple[str, ...]:
        """Those tokens that the lexicon holds, in order of first appearance, each once."""
        return tuple(dict.fromkeys(t for t in tokens if t in self.index))

    def count(self, tokens: Sequence[str]) -> Counter[str]:
        """Tokens in each category; a token in two categories counts in both."""
        return Counter(category for t in tokens for category in self.index.get(t, ()))


@cache
def own_lexicon() -> EmotionLexicon:
    """Our own screening list, English: the readout words, their relatives and general words."""
    words = {e: frozenset((*own, *_MORE[e].split())) for e, own in EMOTION_WORDS.items()}
    words[GENERAL] = frozenset(_GENERAL.split())
    return EmotionLexicon("own screening list", MappingProxyType(words))


def read_nrc(path: Path) -> EmotionLexicon:
    """Read a copy of the NRC Emotion Lexicon in its word-level layout.

    Each line holds a word, a category (`anger`, `anticipation`, `disgust`, `fear`, `joy`,
    `sadness`, `surprise`, `trust`, `negative`, `positive`) and 0 or 1, separated by tabs; lines of
    other shapes above the first such line are taken for the file's preface.

    Raises:
        StimulusError: unreadable, a malformed line, or no word at all.
    """
    path = Path(path)
    found: dict[str, set[str]] = {}
    begun = False
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        match = re.fullmatch(r"([^\t]+)\t([a-z]+)\t([01])\s*", line)
        if match is None:
            if begun and line.strip():
                raise StimulusError(
                    f"{path}, line {number}: {line[:60]!r} is not word, category and 0 or 1 "
                    "separated by tabs"
                )
            continue
        begun = True
        word, category, value = match.groups()
        found.setdefault(category, set())
        if value == "1":
            found[category].add(word.casefold())
    if not any(found.values()):
        raise StimulusError(
            f"{path} holds no line of word, category and 1 separated by tabs: is it the word-level "
            "file of the NRC Emotion Lexicon?"
        )
    return EmotionLexicon(
        f"NRC ({path.name})", MappingProxyType({c: frozenset(ws) for c, ws in found.items()})
    )
