"""The tasks of the starter: small synthetic text-to-text tasks, all made here from a seed.

Two tables at the bottom hold everything: `UPSTREAM` (what the small model is trained on, and what is retrieved
from) and `UNSEEN` (what it is adapted to). A task is a function that makes one *case* (a passage and its answer)
and a few prompt templates that word it. An unseen task asks for a skill that some upstream task teaches, and its
answers are within reach (labels that upstream tasks use, or copies from the input), but its setting, its sentences
and its instructions are its own.

The word banks are large on purpose. A model this small, trained briefly on two dozen tasks at once, knows only part
of them; that leaves room for going on with the examples that matter to the task at hand, as a large model has it on
real tasks. On examples a model already answers perfectly there is no error to learn from.

Every word of an unseen task occurs somewhere upstream, most often in the scenery that surrounds the prompts: a model
trained from scratch cannot know words it has never read, as a pretrained one would.

Only `random.Random` seeded with strings is used, so a seed gives the same rows on every platform and in every
process; the first n rows of a task do not depend on how many are asked for.
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


def _words(text: str) -> list[str]:
    return text.split()


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("/") for pair in text.split())


WOMEN = _words("Anna Maria Julia Clara Emma Nora Alice Ruth Helen Sofia Laura Irene Grace Diana Eva Martha Lucy Rosa")
MEN = _words("Peter Paul David Martin Oscar Victor Henry Simon Tom Jack Adam Leo Hugo Felix Frank George Ivan Daniel")
PEOPLE = WOMEN + MEN
COLOURS = _words("red blue green yellow black white brown grey purple golden")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
NUMBERS = _words("two three four five six seven eight nine ten")
ROOMS = _words("kitchen cellar attic bedroom hall office garden bathroom pantry shed balcony corridor")
THINGS = _words("key parcel letter camera wallet ticket map phone ring torch notebook purse lamp watch basket candle")
GOODS = _words("kettle toaster blender radio printer heater mixer clock tent mattress keyboard fan vacuum mirror")

COUNTRY_OF = _pairs(
    "Oslo/Norway Paris/France Rome/Italy Madrid/Spain Berlin/Germany Vienna/Austria Lisbon/Portugal Athens/Greece "
    "Cairo/Egypt Tokyo/Japan Lima/Peru Dublin/Ireland Warsaw/Poland Helsinki/Finland Nairobi/Kenya Ottawa/Canada "
    "Havana/Cuba Delhi/India Hanoi/Vietnam Stockholm/Sweden Budapest/Hungary Beijing/China Santiago/Chile "
    "Ankara/Turkey Baghdad/Iraq Tehran/Iran Kabul/Afghanistan Bogota/Colombia Caracas/Venezuela Quito/Ecuador "
    "Bucharest/Romania Kiev/Ukraine Minsk/Belarus Riga/Latvia Tallinn/Estonia Zagreb/Croatia "
    "Belgrade/Serbia Bern/Switzerland Brussels/Belgium Copenhagen/Denmark Reykjavik/Iceland Accra/Ghana "
    "Lagos/Nigeria Rabat/Morocco Tunis/Tunisia Tripoli/Libya Manila/Philippines Jakarta/Indonesia Bangkok/Thailand "
    "Canberra/Australia Kampala/Uganda Lusaka/Zambia Dakar/Senegal Damascus/Syria Beirut/Lebanon "
    "Amman/Jordan Doha/Qatar Muscat/Oman Kathmandu/Nepal Yerevan/Armenia Tbilisi/Georgia"
)
PLACE_OF = _pairs(
    "nurse/hospital baker/bakery teacher/school farmer/farm pilot/airport librarian/library judge/court "
    "cook/restaurant mechanic/garage dancer/theatre banker/bank gardener/park sailor/harbour chemist/laboratory "
    "priest/church miner/mine painter/studio soldier/barracks conductor/station shopkeeper/shop weaver/mill "
    "brewer/brewery barber/salon monk/monastery clown/circus potter/workshop jailer/prison butcher/market "
    "curator/museum porter/hotel forester/forest shepherd/meadow king/palace student/university clerk/office "
    "swimmer/pool blacksmith/forge beekeeper/hive knight/castle fisherman/lake"
)
CITIES, JOBS, PLACES = list(COUNTRY_OF), list(PLACE_OF), list(PLACE_OF.values())

KINDS = {
    "fruit": "apple pear plum cherry banana lemon grape peach mango melon kiwi fig apricot papaya raspberry "
    "strawberry blueberry pineapple lime quince coconut cranberry tangerine nectarine",
    "animal": "horse cow sheep goat dog cat rabbit tiger monkey bear lion elephant giraffe wolf fox deer camel "
    "donkey zebra squirrel badger hedgehog leopard buffalo",
    "tool": "hammer saw drill wrench chisel spade axe rake screwdriver file shovel crowbar sickle mallet hoe "
    "trowel ladder plough anvil scythe pickaxe vice crane hatchet",
    "garment": "shirt coat skirt sweater jacket sock glove scarf dress hat blouse vest apron belt cap cardigan tie "
    "shawl cloak robe mitten bonnet tunic sandal",
    "instrument": "piano violin flute drum guitar trumpet harp cello organ clarinet oboe trombone tuba banjo lute "
    "bagpipe xylophone mandolin saxophone accordion fiddle harpsichord piccolo zither",
    "vehicle": "car bus truck bicycle tram tractor van ship taxi ferry train plane boat lorry scooter canoe sleigh "
    "helicopter yacht motorcycle carriage wagon raft cart",
    "vegetable": "carrot onion potato cabbage spinach leek pea turnip radish bean garlic lettuce celery pumpkin "
    "beetroot broccoli cucumber parsnip asparagus artichoke cauliflower fennel kale shallot",
    "drink": "tea coffee milk juice water lemonade cocoa wine beer cider rum whisky brandy soda champagne gin "
    "vodka sherry punch mead port ale nectar syrup",
    "bird": "sparrow eagle crow owl robin gull swan pigeon hawk stork heron raven falcon parrot ostrich penguin "
    "blackbird finch peacock vulture nightingale swallow woodpecker pelican",
    "flower": "rose tulip lily daisy violet orchid poppy iris lilac jasmine daffodil sunflower carnation lavender "
    "primrose peony snowdrop buttercup marigold dahlia crocus hyacinth geranium begonia",
}
MEMBERS = {kind: _words(words) for kind, words in KINDS.items()}

SENTIMENTS = ("positive", "negative")
GOOD = _words(
    "wonderful superb delightful excellent charming lovely brilliant splendid marvellous impressive perfect pleasant "
    "fantastic beautiful graceful reliable comfortable generous elegant thrilling admirable amazing attractive awesome "
    "cheerful clever cosy dazzling divine enchanting enjoyable exquisite fabulous fine flawless friendly gorgeous "
    "great handy heavenly helpful ideal inspiring inviting joyful magical magnificent memorable neat outstanding "
    "polished precious refreshing remarkable satisfying sensational smart smooth solid spotless stunning sturdy "
    "stylish terrific tasteful tidy warm welcoming worthy glorious"
)
BAD = _words(
    "dreadful awful horrible boring terrible ugly clumsy disappointing useless miserable shabby painful filthy "
    "annoying broken tasteless careless noisy dull pathetic abysmal appalling atrocious bland chaotic crude damaged "
    "defective depressing dingy disgusting dismal dreary faulty feeble flawed flimsy foul ghastly gloomy grim gross "
    "hideous hopeless inferior irritating lousy mediocre messy nasty obnoxious offensive repulsive rotten rude rusty "
    "sloppy smelly sour stale tedious tiresome unbearable unfriendly unpleasant worthless wretched wobbly vile"
)
NEWS = {
    "sports": "goalkeeper coach league tournament striker referee stadium medal champion sprinter racket wrestler "
    "javelin hurdle marathon penalty umpire skier gymnast trophy relay cyclist boxer archer rower paddle defender "
    "scoreboard surfer discus fencer jockey",
    "business": "investor profit shareholder merger factory export invoice bonus customer supplier auction dividend "
    "warehouse retailer loan mortgage accountant budget revenue brand tariff broker currency discount employer wage "
    "pension asset audit franchise insurer turnover",
    "science": "telescope molecule experiment physicist fossil planet microscope genome laser bacteria asteroid "
    "electron neuron enzyme comet magnet isotope crystal satellite vaccine biologist atom galaxy protein geologist "
    "dinosaur particle rocket chromosome hypothesis gravity virus",
    "politics": "minister parliament election senator treaty ballot campaign embassy senate voter president governor "
    "mayor diplomat coalition referendum constitution republic ambassador cabinet chancellor congress deputy "
    "monarchy veto lobbyist delegate candidate summit manifesto decree statesman",
    "weather": "storm rain thunder frost sunshine fog hail drought breeze snowfall blizzard hurricane cloud drizzle "
    "lightning heatwave rainbow tornado mist sleet downpour gale humidity icicle monsoon puddle snowflake typhoon "
    "whirlwind flood dew cyclone",
    "music": "orchestra concert singer melody choir album pianist opera chorus symphony violinist drummer ballad "
    "composer rhythm quartet sonata soprano tenor guitarist harmony lyric anthem waltz jazz overture recital tune "
    "bass cellist serenade duet",
}
NEWS_WORDS = {topic: _words(words) for topic, words in NEWS.items()}
FEELINGS = {
    "joy": "smiled danced laughed sang cheered grinned giggled rejoiced clapped beamed whistled celebrated hummed "
    "skipped chuckled glowed exulted twinkled",
    "anger": "shouted yelled swore snarled raged stamped fumed growled cursed scowled glared snapped hissed roared "
    "bellowed ranted frowned seethed",
    "fear": "trembled hid froze screamed shivered fled shuddered panicked cowered gasped flinched quaked paled "
    "cringed shrank quivered fainted recoiled",
    "sadness": "wept sobbed sighed mourned cried grieved moped whimpered lamented despaired pined sulked drooped "
    "wailed brooded languished bawled ached",
}
FEELING_WORDS = {feeling: _words(words) for feeling, words in FEELINGS.items()}
OPPOSITE_OF = _pairs(
    "hot/cold big/small fast/slow early/late open/closed full/empty heavy/light young/old rich/poor wet/dry "
    "strong/weak hard/soft loud/quiet clean/dirty long/short thick/thin deep/shallow narrow/wide bright/dark high/low "
    "cheap/expensive safe/dangerous sweet/bitter near/far awake/asleep first/last brave/cowardly sharp/blunt "
    "tight/loose true/false alive/dead smooth/rough straight/crooked kind/cruel rare/common tall/tiny fresh/rotten "
    "guilty/innocent humble/proud lazy/busy simple/complex calm/stormy public/private modern/ancient"
)
SAME_MEANING = _pairs(
    "buy/purchase begin/start help/assist repair/fix choose/select build/construct clean/wash close/shut "
    "collect/gather finish/complete hide/conceal inspect/examine show/display move/shift find/discover throw/toss"
)
INTENTS = {
    "book travel": ["book a flight to {city}", "reserve a seat on the train to {city}", "get me a ticket to {city}"],
    "play music": ["play some {sound} music", "put on a song with {sound}", "turn up the {sound} concert"],
    "set alarm": ["wake me at {hour} on {day}", "set an alarm for {hour}", "ring me up at {hour} on {day}"],
    "order food": ["order {hour} bowls of {food} soup", "bring me a pie with {food}", "get {hour} plates of {food}"],
    "send message": ["tell {name} that I am late", "write to {name} about {day}", "let {name} know I am in {city}"],
    "check weather": ["will it rain in {city}", "is it cold in {city} on {day}", "do I need a coat in {city}"],
}


# --- small tools -----------------------------------------------------------------------------------------------


def _say(rng: random.Random, patterns: Sequence[str], **words: str) -> str:
    """One of the patterns, filled and begun with a capital; extras that any pattern may use are drawn here."""
    extras = {
        "name": rng.choice(PEOPLE), "city": rng.choice(CITIES), "day": rng.choice(DAYS), "place": rng.choice(PLACES),
        "colour": rng.choice(COLOURS), "job": rng.choice(JOBS), "number": rng.choice(NUMBERS),
    }  # fmt: skip
    text = rng.choice(patterns).format(**extras | words)
    return text[0].upper() + text[1:]


def _an(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _listed(words: Sequence[str], last: str) -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""


def _options(rng: random.Random, answer: str, others: Sequence[str], count: int) -> list[str]:
    """The answer among others, in a random order."""
    return rng.sample(options := [answer, *rng.sample(others, count - 1)], len(options))


# --- makers ----------------------------------------------------------------------------------------------------


def _opinion(
    rng: random.Random, turn: int, openers: Sequence[str], aspects: Sequence[str], labels: Sequence[str]
) -> Case:
    """A neutral opener, and one or two judgements that agree."""
    thing = rng.choice(GOODS)
    one, two = rng.sample(BAD if turn % 2 else GOOD, 2)
    first, second = (aspect.format(thing=thing) for aspect in rng.sample(aspects, 2))
    judgements = [
        _say(rng, ["{about} was {word}.", "{about} is {word}."], about=first, word=one),
        _say(rng, ["{about} seemed {word} to me.", "I found {about} {word}."], about=second, word=two),
    ]
    sentences = [_say(rng, openers, thing=thing), *rng.sample(judgements, rng.choice((1, 2)))]
    return Case({"text": " ".join(sentences), "thing": thing}, labels[turn % 2], labels)


def _labelled(rng: random.Random, turn: int, banks: dict[str, list[str]], patterns: Sequence[str]) -> Case:
    """A sentence with two words of one bank, whose name is the label."""
    label = list(banks)[turn % len(banks)]
    one, two = rng.sample(banks[label], 2)
    return Case({"text": _say(rng, patterns, one=one, two=two)}, label, list(banks))


def _news_city(rng: random.Random, turn: int) -> Case:
    city = rng.choice(CITIES)
    one, two = rng.sample(NEWS_WORDS[rng.choice(list(NEWS))], 2)
    return Case({"text": _say(rng, HEADLINES[:2], one=one, two=two, city=city)}, city)


def _record(
    rng: random.Random, turn: int, facts: dict[str, Sequence[str]], sentences: Sequence[Sequence[str]],
    questions: dict[str, Sequence[str]],
) -> Case:  # fmt: skip
    """A few facts about one thing, and a question whose answer is copied from the text."""
    chosen = {slot: rng.choice(words) for slot, words in facts.items()}
    asked = list(questions)[turn % len(questions)]
    text = " ".join(_say(rng, patterns, **chosen) for patterns in sentences)
    return Case({"text": text, "question": _say(rng, questions[asked], **chosen)}, chosen[asked])


def _claim(
    rng: random.Random, turn: int, facts: dict[str, Sequence[str]], sentences: Sequence[Sequence[str]],
    claims: dict[str, Sequence[str]], labels: Sequence[str],
) -> Case:  # fmt: skip
    """A claim that the text bears out, contradicts, or (where the text is silent on it) leaves open."""
    truth = {slot: rng.choice(words) for slot, words in facts.items()}
    slot, verdict = rng.choice(list(claims)), turn % 3
    claimed = dict(truth)
    if verdict == 1:
        claimed[slot] = rng.choice([word for word in facts[slot] if word != truth[slot]])
    told = [patterns for patterns in sentences if verdict < 2 or "{" + slot + "}" not in patterns[0]]
    text = " ".join(_say(rng, patterns, **truth) for patterns in told)
    return Case({"text": text, "claim": _say(rng, claims[slot], **claimed)}, labels[verdict], labels)


def _whereabouts(rng: random.Random, turn: int) -> Case:
    """Two things put in two rooms, and one of them is wanted."""
    (wanted, other), (room, elsewhere) = rng.sample(THINGS, 2), rng.sample(ROOMS, 2)
    sentences = [_say(rng, PUT_AWAY, thing=wanted, room=room), _say(rng, PUT_AWAY, thing=other, room=elsewhere)]
    return Case({"text": " ".join(rng.sample(sentences, 2)), "thing": wanted}, room)


def _member(rng: random.Random, turn: int) -> Case:
    """Which option is of the kind asked for."""
    kind, *others = rng.sample(list(MEMBERS), 4)
    word = rng.choice(MEMBERS[kind])
    strangers = [rng.choice(MEMBERS[other]) for other in others]
    return Case({"kind": kind, "a_kind": _an(kind)}, word, _options(rng, word, strangers, 4))


def _odd_one(rng: random.Random, turn: int) -> Case:
    """Three of a kind and a stranger."""
    common, other = rng.sample(list(MEMBERS), 2)
    odd = rng.choice(MEMBERS[other])
    return Case({}, odd, _options(rng, odd, rng.sample(MEMBERS[common], 3), 4))


def _kind_of(rng: random.Random, turn: int, patterns: Sequence[str] = ()) -> Case:
    """Of which kind a word is."""
    kinds = list(MEMBERS)
    kind = kinds.pop(turn % len(kinds))
    word = rng.choice(MEMBERS[kind])
    text = _say(rng, patterns, word=word, a_word=_an(word)) if patterns else _an(word)
    return Case({"text": text, "word": word}, kind, _options(rng, kind, kinds, 3))


def _looked_up(rng: random.Random, turn: int, table: dict[str, str], patterns: Sequence[str], options: int) -> Case:
    """What a table of the world says of a word."""
    key = rng.choice(list(table))
    others = [value for value in table.values() if value != table[key]]
    return Case(
        {"text": _say(rng, patterns, key=key), "key": key}, table[key], _options(rng, table[key], others, options)
    )


def _fact(rng: random.Random, turn: int) -> Case:
    table, pattern = (
        (COUNTRY_OF, "{key} is a city in {value}.")
        if rng.random() < 0.5
        else (PLACE_OF, "The {key} works at the {value}.")
    )
    key = rng.choice(list(table))
    value = rng.choice([other for other in table.values() if other != table[key]]) if turn % 2 else table[key]
    return Case({"text": pattern.format(key=key, value=value)}, ("true", "false")[turn % 2], ("true", "false"))


def _opposite(rng: random.Random, turn: int) -> Case:
    pair, *others = rng.sample(list(OPPOSITE_OF.items()), 4)
    word, answer = rng.sample(pair, 2)
    return Case({"word": word}, answer, _options(rng, answer, [rng.choice(other) for other in others], 4))


def _comparison(rng: random.Random, turn: int) -> Case:
    """Two ages; the question asks for the older or the younger child."""
    first, second = rng.sample(PEOPLE, 2)
    low, high = sorted(rng.sample(range(len(NUMBERS)), 2))
    ages = (low, high) if turn % 4 < 2 else (high, low)
    text = " ".join(
        _say(rng, ["{child} is {age} years old.", "{child} is aged {age}."], child=child, age=NUMBERS[age])
        for child, age in zip((first, second), ages, strict=True)
    )
    asked, wanted = ("older", high) if turn % 2 else ("younger", low)
    return Case({"text": text, "asked": asked}, (first, second)[ages.index(wanted)], (first, second))


def _pronoun(rng: random.Random, turn: int) -> Case:
    """A woman and a man, and a pronoun that only one of them fits."""
    woman, man = rng.choice(WOMEN), rng.choice(MEN)
    pronoun, answer = ("she", woman) if turn % 2 else ("he", man)
    one, two = rng.sample((woman, man), 2)
    text = _say(rng, MEETINGS, one=one, two=two, pronoun=pronoun, thing=rng.choice(THINGS))
    return Case({"text": text, "pronoun": pronoun}, answer, (one, two))


def _paraphrase(rng: random.Random, turn: int) -> Case:
    """The second sentence uses a synonym (same), or does something else to something else (different)."""
    name = rng.choice(PEOPLE)
    (deed, other_deed), (thing, other_thing) = rng.sample(list(SAME_MEANING), 2), rng.sample(GOODS, 2)
    said, of = (SAME_MEANING[other_deed], other_thing) if turn % 2 else (SAME_MEANING[deed], thing)
    two = _say(
        rng, ["{who} is going to {said} the {of}.", "{who} plans to {said} the {of}."], who=name, said=said, of=of
    )
    return Case(
        {"one": f"{name} will {deed} the {thing}.", "two": two}, ("same", "different")[turn % 2], ("same", "different")
    )


def _intent(rng: random.Random, turn: int) -> Case:
    intent = list(INTENTS)[turn % len(INTENTS)]
    sound, food = rng.choice(MEMBERS["instrument"]), rng.choice(MEMBERS["vegetable"])
    text = _say(rng, INTENTS[intent], sound=sound, food=food, hour=rng.choice(NUMBERS))
    return Case({"text": f"{text}."}, intent, list(INTENTS))


def _sequence(rng: random.Random, turn: int, things: Sequence[str], patterns: Sequence[str]) -> Case:
    """Three in a row: which is first, or last."""
    one, two, three = rng.sample(things, 3)
    asked, answer = ("first", one) if turn % 2 else ("last", three)
    return Case({"text": _say(rng, patterns, one=one, two=two, three=three), "asked": asked}, answer)


# --- sentences of the domains ----------------------------------------------------------------------------------

PRODUCT_OPENERS = [
    "I bought this {thing} in {city} on {day}.",
    "My {colour} {thing} came on {day}.",
    "{name} gave me a {thing} on {day}.",
    "We ordered the {colour} {thing} from {city}.",
]
PRODUCT_ASPECTS = ["the {thing}", "the design", "the handle", "the sound", "the packaging", "the colour"]
FILM_OPENERS = ["I saw the film with {name} on {day}.", "The film plays in {city}.", "{name} took me to the cinema."]
FILM_ASPECTS = ["the film", "the acting", "the music", "the story", "the ending", "the camera work"]
MEAL_OPENERS = ["We had dinner in {city} on {day}.", "{name} and I shared a meal.", "The {job} took us out to eat."]
MEAL_ASPECTS = ["the soup", "the dessert", "the bread", "the sauce", "the table", "the menu"]
HOTEL_OPENERS = [
    "We spent {number} nights in {city}.",
    "{name} and I stayed until {day}.",
    "We came on {day} by train.",
]
HOTEL_ASPECTS = ["the room", "the breakfast", "the staff", "the garden", "the bed", "the view"]

HEADLINES = [
    "The {one} and the {two} were seen in {city} on {day}.",
    "New {one} and {two} reported in {city}.",
    "{name} spoke about the {one} and the {two}.",
    "The {one} comes after the {two}, says the {job}.",
]
BOOKS = [
    "{name} brought back a thick book on the {one} and the {two}.",
    "This book from {city} explains the {one} and the {two}.",
    "A tale of the {one}, the {two} and a long {day}.",
]
MOODS = ["{name} {one} and {two}.", "On {day} {name} {one} and {two}.", "After the trip {name} {one}, then {two}."]

PERSON = {"name": PEOPLE, "job": JOBS, "city": CITIES, "colour": COLOURS, "vehicle": MEMBERS["vehicle"]}
PERSON_SENTENCES = [
    ["{name} is a {job} and lives in {city}.", "{name} from {city} works as a {job}."],
    [
        "The {vehicle} of {name} is {colour}.",
        "{name} has a {colour} {vehicle}.",
        "{name} drives a {colour} {vehicle}.",
    ],
]
PERSON_QUESTIONS = {
    "city": ["Where does {name} live?", "Which city is {name} from?"],
    "job": ["What is the job of {name}?", "What does {name} work as?"],
    "colour": ["What colour is the {vehicle}?", "Which colour has the {vehicle}?"],
    "vehicle": ["What does {name} drive?", "Which vehicle has {name}?"],
}
PROFILE_SENTENCES = [["{name} is a {job}."], ["{name} lives in {city}."], ["{name} has a {colour} {vehicle}."]]
PROFILE_CLAIMS = {
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
}
FOUND = {"thing": THINGS, "name": PEOPLE, "day": DAYS, "place": PLACES, "colour": COLOURS}
FOUND_SENTENCES = [
    ["On {day} {name} found a {colour} {thing}.", "A {colour} {thing} was given to us by {name} on {day}."],
    ["It came from the {place}.", "It was left at the {place}."],
]
FOUND_QUESTIONS = {
    "name": ["Who had it?", "Who brought the {thing}?"],
    "day": ["Which day was it?", "On which day did it come?"],
    "colour": ["What colour is it?", "Which colour has the {thing}?"],
    "place": ["Where was it?", "Which place is it from?"],
}

PUT_AWAY = [
    "{name} left the {thing} in the {room}.",
    "{name} took the {thing} to the {room}.",
    "The {thing} is in the {room}.",
]
MEETINGS = [
    "{one} met {two} in {city} because {pronoun} needed the {thing}.",
    "{one} called {two} when {pronoun} lost the {thing}.",
    "{one} saw {two} in {city} while {pronoun} looked for a {thing}.",
    "{one} and {two} talked until {pronoun} found the {thing}.",
]
QUEUES = ["In the queue are {one}, {two} and {three}.", "{one} came in, then {two}, then {three}."]
ROUTES = [
    "The bus goes to the {one}, the {two} and the {three}.",
    "We saw the {one}, then the {two}, then the {three}.",
]
RACES = [
    "{one} came to the line, then {two}, and then {three}.",
    "In {city} the runners are {one}, {two} and {three}.",
    "On {day} {one} ran before {two}, and {two} before {three}.",
]

# Scenery has nothing to do with the question. It stands before or after half of the upstream prompts, so that the
# model learns to read past words that are not its business, and meets more words than the tasks alone would need.
SCENERY = [
    "A {job} asks {name} for help.", "{name} reads this aloud at the {place}.", "Question {number} of the quiz.",
    "This was printed on a card.", "Note from {city}, {day}:", "The {job} would like to know.", "Please be brief.",
    "Exercise for the pupils of {name}.", "Heard in a hotel in {city}:", "Answer with care.", "There is no hurry.",
    "{name} and the {job} argue about this.", "Page {number} of a {colour} book.", "A message from {city}.",
    "Hello, dear reader.", "Someone at the {place} wrote this down.", "A guest of {name} left these words.",
    "It stood in the weekly paper of {city}.", "Thank you for your help, {name}.", "The manager is tired on {day}.",
    "The diary of {name} says so.", "An officer at the border looks on.", "The doctor of {name} shares this.",
    "Form {number}, box {number}.", "The author is a {job}.", "Stick a stamp on the letter.", "The bus driver waits.",
    "A shelf fell down at the {place}.", "Mark it with a pen.", "The village won a prize.", "A caller from {city}:",
    "Lost and found at the {place}.", "It belongs to the runner.", "A pile of cards for {name}.", "The desk is full.",
    "{name} spent all nights at home.", "Breakfast was brought back to bed before the race.", "The staff stayed in line.",
    "What a view this morning!", "A tale explains it all.", "These belong to the runners.", "{name} got up and ran home.",
    "The {job} sits down, takes a pen and marks the page.", "It shows what {name} brought.", "The clock ticks.",
    "{name} lets it be.", "An entry in the list of {name}:", "The owner declares it.", "Get off at the next stop.", "Tick the right box.",
]  # fmt: skip


# --- the two tables --------------------------------------------------------------------------------------------

UPSTREAM = {
    "product_sentiment": Task(
        partial(_opinion, openers=PRODUCT_OPENERS, aspects=PRODUCT_ASPECTS, labels=SENTIMENTS),
        {
            "sentiment": "Is this review positive or negative? {text}",
            "after": "{text} What is the sentiment of the review, {options}?",
            "label": "Review: {text} Sentiment:",
            "options": "Classify the review. Options: {options}. {text}",
            "customer": "A customer wrote: {text} Is the customer {options}?",
        },
    ),
    "film_sentiment": Task(
        partial(_opinion, openers=FILM_OPENERS, aspects=FILM_ASPECTS, labels=SENTIMENTS),
        {
            "rate": "Rate the film, {options}. {text}",
            "critic": "{text} What did the critic think of the film?",
            "verdict": "A critic writes: {text} Verdict:",
            "options": "Film review: {text} Options: {options}.",
            "evening": "{text} Was the evening at the cinema {options}?",
        },
    ),
    "meal_sentiment": Task(
        partial(_opinion, openers=MEAL_OPENERS, aspects=MEAL_ASPECTS, labels=SENTIMENTS),
        {
            "guest": "{text} Was the eater {options} about the meal?",
            "cook": "How should the cook take it? {text}",
            "happy": "Is the eater happy? Say {options}. {text}",
            "label": "Meal: {text} Label:",
            "options": "{text} Options: {options}.",
        },
    ),
    "news_topic": Task(
        partial(_labelled, banks=NEWS_WORDS, patterns=HEADLINES),
        {
            "topic": "What is the topic of this headline? {text}",
            "options": "{text} Choose the topic: {options}.",
            "section": "Headline: {text} Section of the newspaper:",
            "classify": "Classify the news into {options}. {text}",
            "about": "Is the story about {options}? {text}",
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
        },
    ),
    "emotion": Task(
        partial(_labelled, banks=FEELING_WORDS, patterns=MOODS),
        {
            "emotion": "What emotion is this? {text}",
            "feel": "{text} How did this person feel: {options}?",
            "label": "Text: {text} Emotion:",
            "options": "Choose the emotion. {text} Options: {options}.",
            "behind": "Which feeling stands behind it, {options}? {text}",
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
        },
    ),
    "delivery_qa": Task(
        partial(_record, facts=DELIVERY, sentences=DELIVERY_SENTENCES, questions=DELIVERY_QUESTIONS),
        {
            "question": "{text} Question: {question}",
            "first": "{question} {text}",
            "driver": "The driver reads: {text} The boss wants to know: {question}",
            "order": "Order: {text} Answer this: {question}",
            "short": "{text} Give a short answer. {question}",
        },
    ),
    "person_nli": Task(
        partial(
            _claim, facts=PERSON, sentences=PROFILE_SENTENCES, claims=PROFILE_CLAIMS, labels=("yes", "no", "maybe")
        ),
        {
            "follows": "{text} Does this follow, {options}? {claim}",
            "premise": "Premise: {text} Hypothesis: {claim} Entailed?",
            "true": "Given this: {text} Is it true? {claim}",
            "options": "{text} So: {claim} Options: {options}.",
        },
    ),
    "where_is": Task(
        _whereabouts,
        {
            "where": "{text} Where is the {thing}?",
            "first": "Where is the {thing}? {text}",
            "find": "{text} In which room can I find the {thing}?",
            "search": "Search for the {thing}. {text} It is in the",
        },
    ),
    "kind_choice": Task(
        _member,
        {
            "which": "Which of these is {a_kind}? {options}.",
            "choose": "Choose the {kind}: {options}.",
            "options": "Find {a_kind}. Options: {options}.",
            "only": "Only one of these is {a_kind}: {options}. Which one?",
        },
    ),
    "kind_of": Task(
        _kind_of,
        {
            "what": "What kind of thing is {text}? Options: {options}.",
            "is": "Is {text} a kind of {options}?",
            "category": "Category of {text} ({options}):",
            "sort": "Sort the word {word} into one of {options}.",
            "label": "Options: {options}. Choose the label for {word}.",
        },
    ),
    "odd_one_out": Task(
        _odd_one,
        {
            "odd": "Find the odd one out: {options}.",
            "different": "Which word is different from the others? {options}.",
            "rest": "{options}. Which one is not like the rest?",
            "kind": "Three of the options are of one kind. Options: {options}. Name the other one.",
        },
    ),
    "country_of": Task(
        partial(_looked_up, table=COUNTRY_OF, patterns=["{key}", "the city of {key}"], options=3),
        {
            "country": "In which country is {key}? Options: {options}.",
            "where": "{text} lies in which country, {options}?",
            "map": "Find {key} on the map: {options}.",
            "choose": "Choose the country of {key} from {options}.",
            "travel": "{name} flies to {key}. Which country is that, {options}?",
        },
    ),
    "fill_blank": Task(
        partial(
            _looked_up,
            table=PLACE_OF,
            options=3,
            patterns=["The {key} goes to work at the ___.", "On {day} the {key} was late at the ___."],
        ),
        {
            "fill": "Fill in the blank. {text} Options: {options}.",
            "word": "{text} Which word is missing: {options}?",
            "choose": "Choose from {options} to complete the sentence. {text}",
            "complete": "Complete: {text} ({options})",
            "gap": "Sentence with a gap: {text} Put in {options}.",
        },
    ),
    "fact_check": Task(
        _fact,
        {
            "true": "True or false? {text}",
            "check": "Check this fact: {text}",
            "statement": "Statement: {text} Is the statement {options}?",
            "options": "{text} Options: {options}.",
        },
    ),
    "opposite": Task(
        _opposite,
        {
            "opposite": "What is the opposite of {word}? Options: {options}.",
            "choose": "Choose the opposite of {word}: {options}.",
            "not": "If it is not {word}, it is: {options}.",
            "contrary": "Which of {options} means the contrary of {word}?",
        },
    ),
    "older_child": Task(
        _comparison,
        {
            "who": "{text} Who is {asked}?",
            "first": "Who is {asked}? {text}",
            "compare": "Compare the ages. {text} The {asked} one is",
            "options": "{text} Options: {options}. Choose the one who is {asked}.",
        },
    ),
    "pronoun": Task(
        _pronoun,
        {
            "who": "{text} Who is {pronoun}?",
            "refer": "{text} What name does the word {pronoun} refer to?",
            "options": "Who does {pronoun} stand for? {text} Options: {options}.",
            "replace": "Replace {pronoun} by a name: {text}",
        },
    ),
    "paraphrase": Task(
        _paraphrase,
        {
            "same": "Do these sentences mean the same or something different? {one} {two}",
            "options": "First: {one} Second: {two} Options: {options}.",
            "compare": "Compare the meaning. {one} {two}",
            "decide": "{one} {two} Are they the {options}?",
        },
    ),
    "queue_order": Task(
        partial(_sequence, things=PEOPLE, patterns=QUEUES),
        {
            "stand": "{text} Who stands {asked}?",
            "first": "Who is {asked} in the queue? {text}",
            "name": "{text} Name the {asked} person.",
            "turn": "{text} Whose turn comes {asked}?",
        },
    ),
    "route_order": Task(
        partial(_sequence, things=PLACES, patterns=ROUTES),
        {
            "place": "{text} Which place was {asked}?",
            "stop": "Which was the {asked} stop? {text}",
            "order": "Put the trip in order. {text} The {asked} stop was the",
            "list": "List the stops and give only the {asked} one. {text}",
        },
    ),
}

UNSEEN = {
    "hotel_guestbook": Task(
        partial(_opinion, openers=HOTEL_OPENERS, aspects=HOTEL_ASPECTS, labels=SENTIMENTS),
        {
            "manager": "A guest of the hotel left a note for the manager: {text} Mark the note as {options}.",
            "entry": "Entry in the book of the hotel: {text} Is the guest {options} about us?",
        },
    ),
    "library_shelf": Task(
        partial(_labelled, banks=NEWS_WORDS, patterns=BOOKS),
        {
            "shelf": "{text} Put it on the right shelf: {options}.",
            "reader": "{text} A reader asks which shelf it belongs to, {options}.",
        },
    ),
    "customs_form": Task(
        partial(_kind_of, patterns=["{name} has {a_word} at the border.", "At the border {name} shows {a_word}."]),
        {
            "officer": "{text} The officer marks the form with {options}.",
            "form": "Form of the officer. {text} Tick {options}:",
        },
    ),
    "letter_stamp": Task(
        partial(
            _looked_up,
            table=COUNTRY_OF,
            options=3,
            patterns=["{name} got a letter from {key}.", "A letter from {key} came for {name}."],
        ),
        {
            "stamp": "{text} The stamp on it shows {options}.",
            "pile": "{text} Does it belong to the pile of {options}?",
        },
    ),
    "bus_stop": Task(
        partial(
            _looked_up,
            table=PLACE_OF,
            options=3,
            patterns=["The {key} takes the bus in the morning.", "In the bus sits the {key} with {name}."],
        ),
        {
            "driver": "{text} The driver lets the {key} off, and the stop is {options}.",
            "next": "{text} Next stops: {options}. Where does the {key} get off?",
        },
    ),
    "lost_property": Task(
        partial(_record, facts=FOUND, sentences=FOUND_SENTENCES, questions=FOUND_QUESTIONS),
        {
            "desk": "Lost and found, list at the desk: {text} A caller asks: {question}",
            "clerk": "The owner asks the clerk: {question} The list says: {text}",
        },
    ),
    "village_race": Task(
        partial(_sequence, things=PEOPLE, patterns=RACES),
        {
            "prize": "The village has a race. {text} The prize for the {asked} runner goes to",
            "paper": "Paper of the village: {text} Which runner was {asked}?",
        },
    ),
}


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
        yield {"id": f"{name}/{split}/{index:06d}", "task": name, **_fresh(rng, task, index, split, seen)}


def _fresh(rng: random.Random, task: Task, index: int, split: str, seen: set[str]) -> dict:
    """A row not seen so far."""
    for _ in range(1000):
        case = task.make(rng, index)
        template, pattern = rng.choice(list(task.templates.items()))
        text = _say(rng, [pattern], options=_listed(case.choices, "or"), **case.fields)
        if split == "train":
            scene = _say(rng, SCENERY)
            text = rng.choice((text, text, f"{scene} {text}", f"{text} {scene}"))
        elif _split_of(case) != split:
            continue
        if text not in seen:
            seen.add(text)
            return {"template": template, "input": text, "references": [case.answer], "choices": list(case.choices)}
    raise ValueError("the task has no more distinct inputs: ask for fewer rows")


def _split_of(case: Case) -> str:
    """The content of a case alone decides its split, so the two cannot overlap."""
    content = "\n".join(f"{field}={value}" for field, value in sorted(case.fields.items()))
    return "query" if zlib.crc32(content.encode()) % 4 == 0 else "test"
