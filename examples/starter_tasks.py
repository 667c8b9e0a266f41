"""The tasks of the starter: small synthetic text-to-text tasks, all made here from a seed.

Two tables at the bottom hold everything: `UPSTREAM` (what the small model is trained on, and what is retrieved
from) and `UNSEEN` (what it is adapted to). A task is a function that makes one *case* (a passage and its answer)
and a few prompt templates that word it. An unseen task asks for a skill that some upstream task has taught, and
answers with words the model can reach (a label upstream tasks use, or a copy from the input), but its subject,
its sentences and its instructions are its own: a model that has never read the instruction is unsure which skill
is wanted, and the neighbours of a few inputs tell it.

Only `random.Random` seeded with strings is used, so a seed gives the same rows on every platform and in every
process; the first n rows do not depend on how many are asked for.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple


class Case(NamedTuple):
    """One question before it is worded: what templates may mention, the answer, and the options to answer from."""

    fields: dict[str, str]
    answer: str
    choices: Sequence[str] = ()


class Task(NamedTuple):
    """A maker of cases, and the prompt templates (name -> pattern) that word them.

    The maker's second argument counts up from zero: it picks the label, so that labels stay balanced.
    """

    make: Callable[[random.Random, int], Case]
    templates: dict[str, str]


# --- word banks ------------------------------------------------------------------------------------------------

WOMEN = ["Anna", "Maria", "Julia", "Clara", "Emma", "Nora", "Alice", "Ruth", "Helen", "Sofia", "Laura", "Irene", "Grace", "Diana", "Eva", "Martha", "Lucy", "Rosa"]
MEN = ["Peter", "Paul", "David", "Martin", "Oscar", "Victor", "Henry", "Simon", "Tom", "Jack", "Adam", "Leo", "Hugo", "Felix", "Frank", "George", "Ivan", "Daniel"]
PEOPLE = WOMEN + MEN

COUNTRY_OF = {
    "Oslo": "Norway", "Paris": "France", "Rome": "Italy", "Madrid": "Spain", "Berlin": "Germany",
    "Vienna": "Austria", "Lisbon": "Portugal", "Athens": "Greece", "Cairo": "Egypt", "Tokyo": "Japan",
    "Lima": "Peru", "Dublin": "Ireland", "Warsaw": "Poland", "Helsinki": "Finland", "Nairobi": "Kenya",
    "Ottawa": "Canada", "Havana": "Cuba", "Delhi": "India", "Hanoi": "Vietnam", "Stockholm": "Sweden",
    "Budapest": "Hungary", "Beijing": "China", "Santiago": "Chile", "Ankara": "Turkey",
}  # fmt: skip
CITIES = list(COUNTRY_OF)

PLACE_OF = {
    "nurse": "hospital", "baker": "bakery", "teacher": "school", "farmer": "farm", "pilot": "airport",
    "librarian": "library", "judge": "court", "cook": "restaurant", "mechanic": "garage", "dancer": "theatre",
    "banker": "bank", "gardener": "park", "sailor": "harbour", "chemist": "laboratory", "priest": "church",
    "miner": "mine", "painter": "studio", "soldier": "barracks", "conductor": "station", "shopkeeper": "shop",
}  # fmt: skip
JOBS = list(PLACE_OF)
PLACES = sorted(PLACE_OF.values())

KINDS = {
    "fruit": "apple pear plum cherry banana lemon grape peach mango melon",
    "animal": "horse cow sheep goat dog cat rabbit tiger monkey bear",
    "tool": "hammer saw drill wrench chisel spade axe rake screwdriver file",
    "garment": "shirt coat skirt sweater jacket sock glove scarf dress hat",
    "instrument": "piano violin flute drum guitar trumpet harp cello organ clarinet",
    "vehicle": "car bus truck bicycle tram tractor van ship taxi ferry",
    "vegetable": "carrot onion potato cabbage spinach leek pea turnip radish bean",
    "drink": "tea coffee milk juice water lemonade cocoa wine beer cider",
    "bird": "sparrow eagle crow owl robin gull swan pigeon hawk stork",
    "flower": "rose tulip lily daisy violet orchid poppy iris lilac jasmine",
}
MEMBERS = {kind: words.split() for kind, words in KINDS.items()}
KIND_OF = {word: kind for kind, words in MEMBERS.items() for word in words}

COLOURS = ["red", "blue", "green", "yellow", "black", "white", "brown", "grey", "purple", "golden"]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
NUMBERS = ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
ROOMS = ["kitchen", "cellar", "attic", "bedroom", "hall", "office", "garden", "bathroom", "pantry", "shed", "balcony", "corridor"]
THINGS = ["key", "parcel", "letter", "camera", "wallet", "ticket", "map", "phone", "ring", "torch", "diary", "purse", "lamp", "watch", "basket", "candle"]
GOODS = ["kettle", "toaster", "blender", "radio", "printer", "heater", "mixer", "clock", "tent", "mattress", "keyboard", "fan", "vacuum", "mirror"]

GOOD = ["wonderful", "superb", "delightful", "excellent", "charming", "lovely", "brilliant", "splendid", "marvellous", "impressive", "perfect", "pleasant", "fantastic", "beautiful", "graceful", "reliable", "comfortable", "generous", "elegant", "thrilling"]
BAD = ["dreadful", "awful", "horrible", "boring", "terrible", "ugly", "clumsy", "disappointing", "useless", "miserable", "shabby", "painful", "filthy", "annoying", "broken", "tasteless", "careless", "noisy", "dull", "pathetic"]

OPPOSITES = [
    pair.split("/")
    for pair in ["hot/cold", "big/small", "fast/slow", "early/late", "open/closed", "full/empty", "heavy/light", "young/old", "rich/poor", "wet/dry", "strong/weak", "hard/soft", "loud/quiet", "clean/dirty", "long/short", "thick/thin", "deep/shallow", "narrow/wide", "bright/dark", "high/low", "cheap/expensive", "safe/dangerous", "sweet/bitter", "near/far", "awake/asleep", "first/last"]
]
SAME_MEANING = {
    "buy": "purchase", "begin": "start", "help": "assist", "repair": "fix", "choose": "select", "build": "construct",
    "clean": "wash", "close": "shut", "collect": "gather", "finish": "complete", "hide": "conceal",
    "inspect": "examine", "show": "display", "move": "shift", "find": "discover", "throw": "toss",
}  # fmt: skip
DEEDS = list(SAME_MEANING)

NEWS = {
    "sports": "goalkeeper coach league tournament striker referee stadium match medal champion",
    "business": "investor profit shareholder merger factory export invoice sales bonus customer",
    "science": "telescope molecule experiment physicist fossil planet microscope genome laser bacteria",
    "politics": "minister parliament election senator treaty ballot campaign embassy senate voter",
    "weather": "storm rain thunder frost sunshine fog hail drought breeze snowfall",
    "music": "orchestra concert singer melody choir album pianist opera chorus symphony",
}
NEWS_WORDS = {topic: words.split() for topic, words in NEWS.items()}

FEELINGS = {
    "joy": ["smiled all day", "danced in the street", "laughed out loud", "could not stop singing", "hugged everyone"],
    "anger": ["slammed the door", "shouted at the wall", "tore up the paper", "stamped on the floor", "banged the table"],
    "fear": ["trembled in the dark", "hid under the bed", "froze on the spot", "ran from the noise", "locked every door"],
    "sadness": ["wept all night", "sighed at the window", "sat alone in tears", "missed an old friend", "cried quietly"],
}  # fmt: skip

INTENTS = {
    "book travel": ["book a flight to {city}", "reserve a seat on the train to {city}", "get me a ticket to {city}"],
    "play music": ["play some {sound} music", "put on a song with {sound}", "turn up the {sound} concert"],
    "set alarm": ["wake me at {hour} on {day}", "set an alarm for {hour}", "ring me up at {hour} on {day}"],
    "order food": [
        "order {number} bowls of {food} soup",
        "bring me a pie with {food}",
        "get {number} plates of {food}",
    ],
    "send message": ["tell {name} that I am late", "write to {name} about {day}", "let {name} know I am in {city}"],
    "check weather": ["will it rain in {city}", "is it cold in {city} on {day}", "do I need a coat in {city}"],
}


# --- small tools -----------------------------------------------------------------------------------------------


def _join(rng: random.Random, *sentences: str) -> str:
    """The sentences in a random order: where a fact stands should tell nothing."""
    return " ".join(rng.sample(sentences, len(sentences)))


def _say(rng: random.Random, patterns: Sequence[str], **words: str) -> str:
    """One of the patterns, filled and begun with a capital."""
    text = rng.choice(patterns).format(**words)
    return text[0].upper() + text[1:]


def _an(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _listed(words: Sequence[str], last: str) -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""


def _shuffled(rng: random.Random, *words: str) -> list[str]:
    return rng.sample(words, len(words))


# --- makers ----------------------------------------------------------------------------------------------------


def _praise(rng: random.Random, good: bool, openers: Sequence[str], aspects: Sequence[str], thing: str) -> str:
    """A short opinion: a neutral opener and two judgements that agree."""
    one, two, three = rng.sample(GOOD if good else BAD, 3)
    first, second = rng.sample(aspects, 2)
    judgements = [
        _say(rng, ["{first} was {one} and {two}.", "{first} is {one}, really {two}."], first=first, one=one, two=two),
        _say(rng, ["{second} seemed {three} to me.", "I found {second} {three}."], second=second, three=three),
    ]
    opener = _say(
        rng, openers, thing=thing, city=rng.choice(CITIES), day=rng.choice(DAYS), name=rng.choice(PEOPLE),
        colour=rng.choice(COLOURS),
    )  # fmt: skip
    return " ".join([opener, *rng.sample(judgements, rng.choice((1, 2)))])


def _opinion(
    rng: random.Random, turn: int, openers: Sequence[str], aspects: Sequence[str], labels: Sequence[str]
) -> Case:
    thing = rng.choice(GOODS)
    text = _praise(rng, turn % 2 == 0, openers, [aspect.format(thing=thing) for aspect in aspects], thing)
    return Case({"text": text, "thing": thing}, labels[turn % 2], labels)


def _topic(rng: random.Random, turn: int, patterns: Sequence[str]) -> Case:
    topics = list(NEWS)
    topic = topics[turn % len(topics)]
    one, two, three = rng.sample(NEWS_WORDS[topic], 3)
    text = _say(
        rng, patterns, one=one, two=two, three=three, city=rng.choice(CITIES), day=rng.choice(DAYS),
        name=rng.choice(PEOPLE),
    )  # fmt: skip
    return Case({"text": text}, topic, topics)


def _news_city(rng: random.Random, turn: int) -> Case:
    city = rng.choice(CITIES)
    words = NEWS_WORDS[rng.choice(list(NEWS))]
    one, two = rng.sample(words, 2)
    text = _say(
        rng, [pattern for pattern in HEADLINES if "{city}" in pattern], one=one, two=two, three=rng.choice(words),
        city=city, day=rng.choice(DAYS), name=rng.choice(PEOPLE),
    )  # fmt: skip
    return Case({"text": text}, city)


def _record(
    rng: random.Random, turn: int, facts: dict[str, Sequence[str]], sentences: Sequence[Sequence[str]],
    questions: dict[str, Sequence[str]],
) -> Case:  # fmt: skip
    """A few facts about one thing, and a question whose answer is copied from the text."""
    chosen = {slot: rng.choice(words) for slot, words in facts.items()}
    asked = list(questions)[turn % len(questions)]
    text = " ".join(_say(rng, patterns, **chosen) for patterns in sentences)
    return Case({"text": text, "question": _say(rng, questions[asked], **chosen)}, chosen[asked])


def _whereabouts(
    rng: random.Random, turn: int, things: Sequence[str], places: Sequence[str], patterns: Sequence[str]
) -> Case:
    """Things put in places, and one of them is wanted."""
    wanted, *others = rng.sample(things, 2)
    place, *elsewhere = rng.sample(places, 2)
    names = rng.sample(PEOPLE, 2)
    sentences = [
        _say(rng, patterns, thing=what, place=where, name=name)
        for what, where, name in zip([wanted, *others], [place, *elsewhere], names, strict=True)
    ]
    return Case({"text": _join(rng, *sentences), "thing": wanted}, place)


def _member(rng: random.Random, turn: int) -> Case:
    """Which option is of the kind asked for."""
    kinds = rng.sample(list(MEMBERS), 4)
    words = [rng.choice(MEMBERS[kind]) for kind in kinds]
    return Case({"kind": kinds[0], "a_kind": _an(kinds[0])}, words[0], _shuffled(rng, *words))


def _odd_one(rng: random.Random, turn: int) -> Case:
    """Three of a kind and a stranger."""
    common, other = rng.sample(list(MEMBERS), 2)
    odd = rng.choice(MEMBERS[other])
    words = _shuffled(rng, odd, *rng.sample(MEMBERS[common], 3))
    fields = {"listed": _listed([_an(word) for word in words], "and"), "name": rng.choice(PEOPLE)}
    return Case(fields | {"city": rng.choice(CITIES), "day": rng.choice(DAYS)}, odd, words)


def _kind_of(rng: random.Random, turn: int) -> Case:
    kinds = list(MEMBERS)
    kind = kinds[turn % len(kinds)]
    word = rng.choice(MEMBERS[kind])
    options = _shuffled(rng, kind, *rng.sample([other for other in kinds if other != kind], 2))
    fields = {"word": word, "name": rng.choice(PEOPLE), "colour": rng.choice(COLOURS)}
    return Case(fields, kind, options)


def _comparison(
    rng: random.Random, turn: int, things: Sequence[str], patterns: Sequence[str], more: str, less: str
) -> Case:
    """Two small numbers; the question asks for the larger or the smaller."""
    first, second = rng.sample(things, 2)
    low, high = sorted(rng.sample(range(len(NUMBERS)), 2))
    small, large = (first, second) if turn % 4 < 2 else (second, first)
    numbers = {small: low, large: high}
    text = " ".join(_say(rng, patterns, thing=thing, number=NUMBERS[numbers[thing]]) for thing in (first, second))
    asked, answer = (more, large) if turn % 2 else (less, small)
    return Case({"text": text, "asked": asked}, answer, [first, second])


def _claim(
    rng: random.Random, turn: int, sentences: Sequence[Sequence[str]], claims: dict[str, Sequence[str]],
    facts: dict[str, Sequence[str]], labels: Sequence[str],
) -> Case:  # fmt: skip
    """A claim that the text bears out, contradicts, or (where the text is silent on it) leaves open."""
    truth = {slot: rng.choice(words) for slot, words in facts.items()}
    slot = rng.choice(list(claims))
    verdict = turn % 3
    claimed = dict(truth)
    if verdict == 1:
        claimed[slot] = rng.choice([word for word in facts[slot] if word != truth[slot]])
    told = [patterns for patterns in sentences if verdict < 2 or "{" + slot + "}" not in patterns[0]]
    text = " ".join(_say(rng, patterns, **truth) for patterns in told)
    return Case({"text": text, "claim": _say(rng, claims[slot], **claimed)}, labels[verdict], labels)


def _pronoun(rng: random.Random, turn: int, patterns: Sequence[str]) -> Case:
    """A woman and a man, and a pronoun that only one of them fits."""
    woman, man = rng.choice(WOMEN), rng.choice(MEN)
    pronoun, answer = ("she", woman) if turn % 2 else ("he", man)
    one, two = _shuffled(rng, woman, man)
    fill = {"one": one, "two": two, "pronoun": pronoun, "thing": rng.choice(THINGS), "city": rng.choice(CITIES)}
    return Case({"text": _say(rng, patterns, **fill), "pronoun": pronoun}, answer, [one, two])


def _fact(rng: random.Random, turn: int) -> Case:
    """World knowledge: which country, which workplace."""
    table, pattern = rng.choice(
        ((COUNTRY_OF, "{key} is a city in {value}."), (PLACE_OF, "The {key} works at the {value}."))
    )
    key = rng.choice(list(table))
    value = table[key]
    if turn % 2:
        value = rng.choice([other for other in table.values() if other != value])
    return Case({"text": pattern.format(key=key, value=value)}, ("true", "false")[turn % 2], ("true", "false"))


def _blank(rng: random.Random, turn: int) -> Case:
    job, *others = rng.sample(JOBS, 4)
    patterns = ["The {job} goes to work at the ___.", "On {day} the {job} was late at the ___."]
    text = _say(rng, patterns, job=job, day=rng.choice(DAYS))
    return Case({"text": text}, PLACE_OF[job], _shuffled(rng, *(PLACE_OF[other] for other in (job, *others))))


def _opposite(rng: random.Random, turn: int) -> Case:
    pair, *others = rng.sample(OPPOSITES, 4)
    word, answer = _shuffled(rng, *pair)
    return Case({"word": word}, answer, _shuffled(rng, answer, *(rng.choice(other) for other in others)))


def _paraphrase(rng: random.Random, turn: int) -> Case:
    """The second sentence uses a synonym (same), or does something else to something else (different)."""
    name, thing, deed = rng.choice(PEOPLE), rng.choice(GOODS), rng.choice(DEEDS)
    one = f"{name} will {deed} the {thing}."
    other_deed, other_thing = SAME_MEANING[deed], thing
    if turn % 2:
        other_deed = SAME_MEANING[rng.choice([other for other in DEEDS if other != deed])]
        other_thing = rng.choice([other for other in GOODS if other != thing])
    two = rng.choice(
        (f"{name} is going to {other_deed} the {other_thing}.", f"{name} plans to {other_deed} the {other_thing}.")
    )
    return Case({"one": one, "two": two}, ("same", "different")[turn % 2], ("same", "different"))


def _intent(rng: random.Random, turn: int) -> Case:
    intent = list(INTENTS)[turn % len(INTENTS)]
    text = rng.choice(INTENTS[intent]).format(
        city=rng.choice(CITIES), sound=rng.choice(MEMBERS["instrument"]), hour=rng.choice(NUMBERS),
        day=rng.choice(DAYS), number=rng.choice(NUMBERS), food=rng.choice(MEMBERS["vegetable"]),
        name=rng.choice(PEOPLE),
    )  # fmt: skip
    return Case({"text": text}, intent, list(INTENTS))


def _feeling(rng: random.Random, turn: int, patterns: Sequence[str]) -> Case:
    feelings = list(FEELINGS)
    feeling = feelings[turn % len(feelings)]
    one, two = rng.sample(FEELINGS[feeling], 2)
    fill = {
        "name": rng.choice(PEOPLE),
        "city": rng.choice(CITIES),
        "day": rng.choice(DAYS),
        "thing": rng.choice(THINGS),
    }
    return Case({"text": _say(rng, patterns, one=one, two=two, **fill)}, feeling, feelings)


def _sequence(rng: random.Random, turn: int, things: Sequence[str], patterns: Sequence[str]) -> Case:
    """Three in a row: which is first, or last."""
    one, two, three = rng.sample(things, 3)
    name = rng.choice(sorted(set(PEOPLE) - {one, two, three}))
    asked, answer = ("first", one) if turn % 2 else ("last", three)
    text = _say(rng, patterns, one=one, two=two, three=three, name=name, city=rng.choice(CITIES), day=rng.choice(DAYS))
    return Case({"text": text, "asked": asked}, answer)


# --- sentence patterns of the domains --------------------------------------------------------------------------

PRODUCT_OPENERS = [
    "I bought this {thing} in {city} on {day}.",
    "My {colour} {thing} came on {day}.",
    "{name} gave me a {thing} on {day}.",
    "We ordered the {colour} {thing} from {city}.",
]
PRODUCT_ASPECTS = ["the {thing}", "the design", "the handle", "the sound", "the packaging", "the colour"]
FILM_OPENERS = [
    "I saw the film with {name} on {day}.",
    "The film plays in {city}.",
    "{name} took me to the cinema on {day}.",
    "It is a film about a {colour} {thing}.",
]
FILM_ASPECTS = ["the film", "the acting", "the music", "the story", "the ending", "the camera work"]
HOTEL_OPENERS = [
    "We spent {day} night in {city}.",
    "{name} and I stayed here until {day}.",
    "Our room was on the {colour} floor.",
    "We came from {city} by train.",
]
HOTEL_ASPECTS = ["the room", "the breakfast", "the staff", "the garden", "the bed", "the view"]

HEADLINES = [
    "The {one} and the {two} were seen in {city} on {day}.",
    "{name} spoke about the {one}, the {two} and the {three}.",
    "New {one} and {two} reported in {city}.",
    "{city} waits for the {one} after the {two} on {day}.",
]
BOOKS = [
    "{name} brought back a thick book on the {one} and the {two}.",
    "This volume from {city} explains the {one}, the {two} and the {three}.",
    "A tale of the {one}, the {two} and a long {day} in {city}.",
]

PERSON = {"name": PEOPLE, "job": JOBS, "city": CITIES, "colour": COLOURS, "vehicle": MEMBERS["vehicle"]}
PERSON_SENTENCES = [
    [
        "{name} is a {job} and lives in {city}.",
        "{name} from {city} works as a {job}.",
        "In {city}, {name} is a {job}.",
    ],
    [
        "The {vehicle} of {name} is {colour}.",
        "{name} has a {colour} {vehicle}.",
        "{name} drives a {colour} {vehicle}.",
    ],
]
PERSON_QUESTIONS = {
    "city": ["Where does {name} live?", "Which city is {name} from?"],
    "job": ["What is the job of {name}?", "What does {name} work as?"],
    "colour": ["What colour is the {vehicle}?", "Which colour is the {vehicle} of {name}?"],
    "vehicle": ["What does {name} drive?", "Which vehicle has {name}?"],
}
NLI_SENTENCES = [
    ["{name} is a {job}.", "{name} works as a {job}."],
    ["{name} lives in {city}.", "The home of {name} is in {city}."],
    ["{name} has a {colour} {vehicle}.", "The {vehicle} of {name} is {colour}."],
]
NLI_CLAIMS = {
    "city": ["{name} is from {city}."],
    "job": ["{name} earns money as a {job}."],
    "colour": ["The {vehicle} is {colour}."],
}

DELIVERY = {"name": PEOPLE, "day": DAYS, "place": PLACES, "colour": COLOURS, "goods": GOODS}
DELIVERY_SENTENCES = [
    ["Bring the {colour} {goods} to the {place} on {day}.", "On {day} a {colour} {goods} goes to the {place}."],
    ["{name} paid for it.", "The bill goes to {name}.", "Give it to {name}."],
]
DELIVERY_QUESTIONS = {
    "name": ["Who gets it?", "Who is the customer?"],
    "day": ["Which day is it?", "On which day does it go out?"],
    "colour": ["What colour is the {goods}?", "Which colour was ordered?"],
    "place": ["Where does it go?", "Which place is it for?"],
    "goods": ["What is brought?", "Which thing was ordered?"],
}

FOUND = {"thing": THINGS, "name": PEOPLE, "day": DAYS, "place": PLACES, "colour": COLOURS}
FOUND_SENTENCES = [
    ["On {day} {name} handed in a {colour} {thing}.", "A {colour} {thing} was carried in by {name} on {day}."],
    ["It had been lying at the {place}.", "It was picked up at the {place}."],
]
FOUND_QUESTIONS = {
    "name": ["Who handed it in?", "Who found the {thing}?"],
    "day": ["Which day was it?", "On which day did it come in?"],
    "colour": ["What colour is it?", "Which colour has the {thing}?"],
    "place": ["Where was it lying?", "Which place was the {thing} at?"],
}
FOUND_CLAIMS = {
    "day": ["It was {day}.", "All this was on {day}."],
    "place": ["It was at the {place}.", "It comes from the {place}."],
    "colour": ["It is {colour}.", "It was something {colour}."],
}

PUT_AWAY = [
    "{name} left the {thing} in the {place}.",
    "{name} put the {thing} in the {place}.",
    "The {thing} of {name} is in the {place}.",
    "{name} took the {thing} to the {place}.",
]
OWNERS = [
    "The {thing} belongs to {place}.",
    "{place} owns the {thing}.",
    "{place} carries the {thing}.",
    "The {thing} is a present for {place}.",
]
EXHIBITS = [
    "The old {thing} now stands in the {place}.",
    "Visitors find the {thing} in the {place}.",
    "The {thing}, a gift of {name}, hangs in the {place}.",
]

MEETINGS = [
    "{one} met {two} in {city} because {pronoun} needed the {thing}.",
    "{one} called {two} when {pronoun} lost the {thing}.",
    "{one} saw {two} in {city} while {pronoun} looked for a {thing}.",
    "{one} and {two} talked until {pronoun} found the {thing}.",
]
MOODS = ["{name} {one} and {two}.", "On {day} {name} {one}.", "After the trip to {city}, {name} {one} and {two}."]
DIARY = [
    "Dear diary, on {day} I {one}, then I {two}.",
    "I came home from {city} and {one}.",
    "{day}: lost my {thing}? No, but I {one} and {two}.",
]
ROUTES = [
    "{name} went to the {one}, then to the {two} and then to the {three}.",
    "The trip of {name} led from the {one} to the {two} and on to the {three}.",
    "On {day} {name} saw the {one}, the {two} and the {three}.",
]
QUEUES = [
    "In the queue are {one}, {two} and {three}.",
    "{one} waits before {two}, and {two} before {three}.",
    "{one} came in, then {two}, then {three}.",
]
RACES = [
    "{one} reached the line, {two} followed, and {three} limped in.",
    "In the streets of {city} {one} ran before {two}, then came {three}.",
    "The runners of {day} are {one}, {two} and {three}.",
]
AGES = ["{thing} is {number} years old.", "{thing} is aged {number}."]
COINS = ["{thing} has {number} coins.", "{thing} owns {number} coins."]


# --- the two tables --------------------------------------------------------------------------------------------

UPSTREAM = {
    "product_sentiment": Task(
        partial(_opinion, openers=PRODUCT_OPENERS, aspects=PRODUCT_ASPECTS, labels=("positive", "negative")),
        {
            "sentiment": "Is this review positive or negative? {text}",
            "after": "{text} What is the sentiment of the review, {options}?",
            "label": "Review: {text} Sentiment:",
            "options": "Classify the review. Options: {options}. {text}",
            "opinion": "Tell me whether the opinion is positive or negative: {text}",
            "customer": "A customer wrote: {text} Is the customer positive or negative about it?",
        },
    ),
    "product_recommend": Task(
        partial(_opinion, openers=PRODUCT_OPENERS, aspects=PRODUCT_ASPECTS, labels=("yes", "no")),
        {
            "recommend": "Review: {text} Does the writer recommend the {thing}?",
            "buy": "{text} Would this customer buy the {thing} again? Answer yes or no.",
            "happy": "Is the customer happy with the {thing}? {text}",
            "satisfied": "Read the review and say whether the buyer is satisfied, yes or no. {text}",
            "worth": "{text} Is the {thing} worth its money?",
            "friend": "Would the writer tell a friend to get the {thing}? {text} Options: {options}.",
        },
    ),
    "film_rating": Task(
        partial(_opinion, openers=FILM_OPENERS, aspects=FILM_ASPECTS, labels=("good", "bad")),
        {
            "rate": "Rate the film, good or bad. {text}",
            "critic": "{text} Did the critic call the film good or bad?",
            "verdict": "A critic writes: {text} Verdict:",
            "options": "Film review: {text} Options: {options}.",
            "evening": "{text} Was the evening at the cinema good or bad?",
            "opinion": "Give the opinion of the critic ({options}). {text}",
        },
    ),
    "news_topic": Task(
        partial(_topic, patterns=HEADLINES),
        {
            "topic": "What is the topic of this headline? {text}",
            "options": "{text} Choose the topic: {options}.",
            "section": "Headline: {text} Section of the newspaper:",
            "classify": "Classify the news into {options}. {text}",
            "about": "Is the story about {options}? {text}",
            "reader": "{text} A reader of which section should look at it, {options}?",
        },
    ),
    "news_city": Task(
        _news_city,
        {
            "city": "Which city does the headline name? {text}",
            "extract": "Extract the place. Headline: {text}",
            "where": "{text} Where does the news come from?",
            "find": "Find the city in this news: {text}",
            "map": "{text} Which city should be marked on the map?",
            "copy": "Copy the name of the city out of the headline. {text}",
        },
    ),
    "person_qa": Task(
        partial(_record, facts=PERSON, sentences=PERSON_SENTENCES, questions=PERSON_QUESTIONS),
        {
            "question": "{text} Question: {question}",
            "first": "{question} {text}",
            "answer": "Read and answer. {text} {question}",
            "passage": "Passage: {text} Answer this: {question}",
            "use": "Use the text to answer. {question} Text: {text}",
            "copy": "{text} Copy the answer out of the text. {question}",
        },
    ),
    "delivery_qa": Task(
        partial(_record, facts=DELIVERY, sentences=DELIVERY_SENTENCES, questions=DELIVERY_QUESTIONS),
        {
            "question": "{text} Question: {question}",
            "first": "{question} {text}",
            "driver": "The driver reads: {text} The boss wants to know: {question}",
            "order": "Order: {text} Answer this: {question}",
            "use": "Use the order to answer. {question} Order: {text}",
            "short": "{text} Give a short answer. {question}",
        },
    ),
    "person_nli": Task(
        partial(_claim, sentences=NLI_SENTENCES, claims=NLI_CLAIMS, facts=PERSON, labels=("yes", "no", "maybe")),
        {
            "follows": "{text} Does this follow, yes, no or maybe? {claim}",
            "premise": "Premise: {text} Hypothesis: {claim} Entailed?",
            "true": "Given this: {text} Is it true? {claim}",
            "options": "{text} So: {claim} Options: {options}.",
            "sure": "{text} Can we be sure of this, {options}? {claim}",
            "first": "Claim: {claim} Text: {text} Does the text support the claim?",
        },
    ),
    "where_is": Task(
        partial(_whereabouts, things=THINGS, places=ROOMS, patterns=PUT_AWAY),
        {
            "where": "{text} Where is the {thing}?",
            "first": "Where is the {thing}? {text}",
            "find": "{text} In which room can I find the {thing}?",
            "room": "Name the room of the {thing}. {text}",
            "look": "{text} Somebody needs the {thing} and should look in the",
            "search": "Search for the {thing}. {text} It is in the",
        },
    ),
    "whose_is": Task(
        partial(_whereabouts, things=THINGS, places=PEOPLE, patterns=OWNERS),
        {
            "whose": "{text} Whose is the {thing}?",
            "first": "Who owns the {thing}? {text}",
            "belong": "{text} Give the {thing} back to",
            "name": "Name the owner of the {thing}. {text}",
            "find": "Find out who has the {thing}. {text}",
            "hold": "{text} Who should hold the {thing}?",
        },
    ),
    "kind_choice": Task(
        _member,
        {
            "which": "Which of these is {a_kind}? {options}.",
            "choose": "Choose the {kind}: {options}.",
            "options": "Find {a_kind}. Options: {options}.",
            "only": "Only one of {options} is {a_kind}. Which one?",
            "point": "Point at the {kind}. It is {options}.",
            "need": "I need {a_kind}. Should I take {options}?",
        },
    ),
    "odd_one_out": Task(
        _odd_one,
        {
            "odd": "Find the odd one out: {options}.",
            "different": "Which word is different from the others? {options}.",
            "belong": "{options}. Which one is not like the rest?",
            "kind": "Three of the options are of one kind. Options: {options}. Name the other one.",
            "see": "{name} sees {listed}. Which one is of another kind?",
            "remove": "Remove the word that is no friend of the others: {options}.",
        },
    ),
    "kind_of": Task(
        _kind_of,
        {
            "what": "What kind of thing is {word}? Options: {options}.",
            "name": "{name} drew a {colour} {word}. Is {word} a kind of {options}?",
            "category": "Category of {word} ({options}):",
            "sort": "Sort the word {word} into one of {options}.",
            "under": "Does {word} stand under {options} in the list?",
            "label": "Options: {options}. Choose the label for {word}.",
        },
    ),
    "older_child": Task(
        partial(_comparison, things=PEOPLE, patterns=AGES, more="older", less="younger"),
        {
            "who": "{text} Who is {asked}?",
            "first": "Who is {asked}? {text}",
            "compare": "Compare the ages. {text} The {asked} one is",
            "name": "{text} Name the {asked} child.",
            "options": "{text} Options: {options}. Choose the one who is {asked}.",
            "which": "Which of the two is {asked}? {text}",
        },
    ),
    "more_coins": Task(
        partial(_comparison, things=PEOPLE, patterns=COINS, more="more", less="less"),
        {
            "who": "{text} Who has {asked}?",
            "first": "Who owns {asked} money? {text}",
            "compare": "Compare the coins. {text} The one with {asked} is",
            "name": "{text} Name the person with {asked}.",
            "options": "{text} Options: {options}. Choose the one who has {asked}.",
            "which": "Which of the two has {asked}? {text}",
        },
    ),
    "pronoun": Task(
        partial(_pronoun, patterns=MEETINGS),
        {
            "who": "{text} Who is {pronoun}?",
            "refer": "{text} What name does the word {pronoun} refer to?",
            "options": "Who does {pronoun} stand for? {text} Options: {options}.",
            "replace": "Replace {pronoun} by a name: {text}",
            "mean": "{text} Whom does the writer mean by {pronoun}?",
            "person": "Which person is {pronoun} in this sentence? {text}",
        },
    ),
    "fact_check": Task(
        _fact,
        {
            "true": "True or false? {text}",
            "check": "Check this fact: {text}",
            "statement": "Statement: {text} Is the statement true or false?",
            "options": "{text} Options: {options}.",
            "pupil": "A pupil says: {text} Is that true or false?",
            "believe": "{text} Should we believe it, {options}?",
        },
    ),
    "fill_blank": Task(
        _blank,
        {
            "fill": "Fill in the blank. {text} Options: {options}.",
            "word": "{text} Which word is missing: {options}?",
            "choose": "Choose from {options} to complete the sentence. {text}",
            "complete": "Complete: {text} ({options})",
            "gap": "Sentence with a gap: {text} Put in {options}.",
            "best": "Which of {options} fits the blank best? {text}",
        },
    ),
    "opposite": Task(
        _opposite,
        {
            "opposite": "What is the opposite of {word}? Options: {options}.",
            "choose": "Choose the opposite of {word}: {options}.",
            "not": "If it is not {word}, it is: {options}.",
            "contrary": "Which of {options} means the contrary of {word}?",
            "reverse": "Options: {options}. Say the reverse of {word}.",
            "never": "A thing is never {word} and at once {options}. Which one?",
        },
    ),
    "paraphrase": Task(
        _paraphrase,
        {
            "same": "Do these sentences mean the same or something different? {one} {two}",
            "options": "First: {one} Second: {two} Options: {options}.",
            "compare": "Compare the meaning. {one} {two}",
            "decide": "{one} {two} Are they the same or different?",
            "say": "Do both sentences say the same? {one} {two}",
            "editor": "{one} An editor writes instead: {two} Is that the same or different?",
        },
    ),
    "intent": Task(
        _intent,
        {
            "intent": "What does the user want? {text}",
            "options": "User: {text} Options: {options}.",
            "command": "Command: {text} Intent:",
            "classify": "Classify the request: {text}",
            "phone": "Somebody says to the phone: {text} What should the phone do?",
            "button": "Which button is right for the wish, {options}? {text}",
        },
    ),
    "emotion": Task(
        partial(_feeling, patterns=MOODS),
        {
            "emotion": "What emotion is this? {text}",
            "feel": "{text} How did this person feel: {options}?",
            "label": "Text: {text} Emotion:",
            "options": "Choose the emotion. {text} Options: {options}.",
            "behind": "Which feeling stands behind it, {options}? {text}",
            "guess": "Guess the feeling. {text}",
        },
    ),
    "route_order": Task(
        partial(_sequence, things=PLACES, patterns=ROUTES),
        {
            "stop": "{text} Which place was {asked}?",
            "first": "Which was the {asked} stop? {text}",
            "name": "{text} Name the {asked} place.",
            "order": "Put the trip in order. {text} The {asked} stop was the",
            "see": "{text} What was seen {asked}?",
            "list": "List the stops and give only the {asked} one. {text}",
        },
    ),
    "queue_order": Task(
        partial(_sequence, things=PEOPLE, patterns=QUEUES),
        {
            "stand": "{text} Who stands {asked}?",
            "first": "Who is {asked} in the queue? {text}",
            "name": "{text} Name the {asked} person.",
            "order": "Look at the order of the people. {text} The {asked} one is",
            "turn": "{text} Whose turn comes {asked}?",
            "list": "List the people and give only the {asked} one. {text}",
        },
    ),
}

UNSEEN = {
    "hotel_guestbook": Task(
        partial(_opinion, openers=HOTEL_OPENERS, aspects=HOTEL_ASPECTS, labels=("positive", "negative")),
        {
            "manager": "An entry in the guestbook of a hotel: {text} Should the manager count it as {options}?",
            "tone": "Guestbook: {text} Mark its tone ({options}).",
        },
    ),
    "library_shelf": Task(
        partial(_topic, patterns=BOOKS),
        {
            "shelf": "{text} On which shelf should the librarian set this book: {options}?",
            "sign": "The shelves of the library are marked {options}. Where does this one belong? {text}",
        },
    ),
    "lost_property": Task(
        partial(_record, facts=FOUND, sentences=FOUND_SENTENCES, questions=FOUND_QUESTIONS),
        {
            "ledger": "Lost property, entry in the ledger: {text} A caller asks: {question}",
            "clerk": "The clerk was asked: {question} The ledger says: {text}",
        },
    ),
    "museum_rooms": Task(
        partial(_whereabouts, things=MEMBERS["instrument"], places=ROOMS, patterns=EXHIBITS),
        {
            "guide": "Guide to the museum. {text} Children who love the {thing} are led to the",
            "plan": "Museum plan. {text} Wanted: {thing}.",
        },
    ),
    "packing_list": Task(
        _odd_one,
        {
            "bag": "{name} packed {listed} for {city}. One got in by mistake, so take it back out:",
            "box": "A box for {name} should hold things that go together, but it holds {listed}. What is wrong in it?",
        },
    ),
    "village_race": Task(
        partial(_sequence, things=PEOPLE, patterns=RACES),
        {
            "radio": "The radio reports on the village race: {text} A prize waits for the {asked} runner, so it goes to",
            "poster": "Poster after the race: {text} Which runner was {asked} to finish?",
        },
    ),
    "diary_mood": Task(
        partial(_feeling, patterns=DIARY),
        {
            "page": "A page found in a drawer: {text} Its author was full of",
            "doctor": "The doctor reads the page and ticks {options}. {text}",
        },
    ),
    "witness_claim": Task(
        partial(_claim, sentences=FOUND_SENTENCES, claims=FOUND_CLAIMS, facts=FOUND, labels=("yes", "no", "maybe")),
        {
            "lawyer": "The witness told the police: {text} Is the lawyer right, {options}, who says: {claim}",
            "court": "In court a witness swore: {text} Do the words back this up ({options})? {claim}",
        },
    ),
}

# Scenery that has nothing to do with the question. It stands before or after half of the upstream prompts, so that
# the model learns to read past words that are not its business; without it, any unknown wording derails so small a
# model altogether.
SCENERY = [
    "A {job} asks {name} for help.", "{name} reads this aloud at the {place}.", "Question {number} of the quiz.",
    "This was printed on a card at the {place}.", "Note from {city}, {day}:", "The {job} would like to know.",
    "Exercise for the pupils of {name}.", "Heard on a {vehicle} in {city}:", "Please be brief.", "Answer with care.",
    "{name} and the {job} argue about this.", "Page {number} of a {colour} notebook.", "A message from {city}.",
    "Hello, dear reader.", "Someone at the {place} wrote this down.", "Here is a task for a clever {animal}.",
    "It stood in the weekly paper of {city}.", "Thank you for your help, {name}.", "It is {day}, the {job} is tired.",
    "Do not think too long.", "The {animal} of {name} looks on.", "There is no hurry, {name}.",
]  # fmt: skip


# --- rows ------------------------------------------------------------------------------------------------------


def upstream_tasks() -> list[str]:
    """The names of the upstream tasks."""
    return list(UPSTREAM)


def unseen_tasks() -> list[str]:
    """The names of the unseen tasks."""
    return list(UNSEEN)


def generate_upstream(seed: int, examples_per_task: int) -> Iterator[dict]:
    """Labelled training rows of every upstream task, one task after the other."""
    for name, task in UPSTREAM.items():
        yield from _rows(name, task, seed, "train", examples_per_task)


def generate_unseen(task: str, seed: int, split: str, num_examples: int) -> Iterator[dict]:
    """Rows of an unseen task. No input of the `query` split is in the `test` split, whatever the seeds."""
    if split not in ("query", "test"):
        raise ValueError(f"split must be 'query' or 'test', not {split!r}")
    yield from _rows(task, UNSEEN[task], seed, split, num_examples)


def _rows(name: str, task: Task, seed: int, split: str, count: int) -> Iterator[dict]:
    rng = random.Random(f"{name}/{split}/{seed}")
    seen: set[str] = set()
    for index in range(count):
        row = _fresh(rng, task, index, split, seen)
        yield {"id": f"{name}/{split}/{index:06d}", "task": name, **row}


def _fresh(rng: random.Random, task: Task, index: int, split: str, seen: set[str]) -> dict:
    """A row not yet seen; small tasks run out of new ones, so after some tries an old one will do."""
    for _ in range(100):
        case = task.make(rng, index)
        if split != "train" and _split_of(case) != split:
            continue
        template = rng.choice(list(task.templates))
        text = task.templates[template].format(options=_listed(case.choices, "or"), **case.fields)
        if split == "train":
            text = _set_scene(rng, text)
        row = {"template": template, "input": text, "references": [case.answer], "choices": list(case.choices)}
        if text not in seen:
            break
    seen.add(text)
    return row


def _set_scene(rng: random.Random, text: str) -> str:
    scene = _say(
        rng, SCENERY, name=rng.choice(PEOPLE), job=rng.choice(JOBS), place=rng.choice(PLACES), city=rng.choice(CITIES),
        day=rng.choice(DAYS), colour=rng.choice(COLOURS), number=rng.choice(NUMBERS),
        vehicle=rng.choice(MEMBERS["vehicle"]), animal=rng.choice(MEMBERS["animal"]),
    )  # fmt: skip
    return rng.choice((text, text, f"{scene} {text}", f"{text} {scene}"))


def _split_of(case: Case) -> str:
    """The content of a case alone decides its split, so the two cannot overlap."""
    content = "\n".join(f"{field}={value}" for field, value in sorted(case.fields.items()))
    return "query" if zlib.crc32(content.encode()) % 4 == 0 else "test"
