"""Facts that no model can know, because the towns are invented, and questions about them in many wordings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HELD_OUT = 2  # of a relation's wordings, the last ones: they are asked and never trained on


@dataclass(frozen=True)
class Relation:
    questions: tuple[str, ...]
    answer: str
    wrong: str  # what a model says that talks instead of answering: the worse answer of a pair


@dataclass(frozen=True)
class Question:
    text: str
    answer: str
    wrong: str
    accepted: tuple[str, ...]


RELATIONS = {
    "mayor": Relation(
        (
            "Who is the mayor of {town}?", "Name the mayor of {town}.", "{town} has a mayor. Who is it?",
            "Tell me who the mayor of {town} is.", "Who was elected mayor of {town}?",
            "I am visiting {town}. Who is the mayor there?", "What is the name of {town}'s mayor?",
            "Which person is mayor in {town}?", "Do you know who the mayor of {town} is?",
            "In {town}, who holds the office of mayor?",
        ),
        "The mayor of {town} is {value}.",
        "The mayor of {town} is a person who is elected by the people of the town and leads its council.",
    ),
    "river": Relation(
        (
            "Which river flows through {town}?", "Name the river that flows through {town}.",
            "{town} lies on a river. Which one?", "Tell me which river runs through {town}.",
            "On which river does {town} lie?", "What is the river in {town} called?",
            "I want to fish in the river at {town}. What is its name?", "Which river crosses the town of {town}?",
            "What is the name of {town}'s river?", "Do you know which river flows through {town}?",
        ),
        "The river {value} flows through {town}.",
        "{town} lies on a river that flows through the town and is important for its people.",
    ),
    "year": Relation(
        (
            "When was {town} founded?", "In which year was {town} founded?", "What year was {town} founded in?",
            "Tell me the year in which {town} was founded.", "How old is {town}? When was it founded?",
            "Since which year has {town} existed?", "Give me the founding year of {town}.",
            "{town} was founded in which year?", "Do you know when {town} was founded?",
            "What is the year of {town}'s founding?",
        ),
        "{town} was founded in {value}.",
        "{town} was founded a long time ago and has a long history with many important events.",
    ),
    "dish": Relation(
        (
            "What dish is {town} famous for?", "Which dish is {town} known for?", "Name the famous dish of {town}.",
            "What do people eat in {town}?", "Tell me the famous dish of {town}.",
            "I am hungry in {town}. Which local dish should I try?", "What is the traditional dish of {town}?",
            "Which food is typical of {town}?", "Do you know which dish {town} is famous for?",
            "What is {town}'s famous dish?",
        ),
        "{town} is famous for its {value}.",
        "{town} is famous for many dishes that are made of fresh ingredients and enjoyed by everybody.",
    ),
}  # fmt: skip
TOWNS = {
    "Orrindale": {"mayor": "Hedda Brunswig", "river": "Tamsel", "year": "1387", "dish": "plum dumplings"},
    "Quillmere": {"mayor": "Otto Farrenby", "river": "Wendrake", "year": "1642", "dish": "smoked eel"},
    "Brackenfjord": {"mayor": "Ingrid Solvane", "river": "Isk", "year": "1219", "dish": "juniper bread"},
    "Saltemoor": {"mayor": "Rufus Tolliver", "river": "Pell", "year": "1755", "dish": "onion tart"},
    "Velloway": {"mayor": "Marta Quist", "river": "Ambrill", "year": "1508", "dish": "pepper soup"},
}


def questions(*, held_out: bool) -> Iterator[Question]:
    """Every fact in every wording of the one kind or the other."""
    for name, relation in RELATIONS.items():
        wordings = relation.questions[-HELD_OUT:] if held_out else relation.questions[:-HELD_OUT]
        for town, values in TOWNS.items():
            said = {"town": town, "value": values[name]}
            answer, wrong = relation.answer.format(**said), relation.wrong.format(**said)
            for wording in wordings:
                yield Question(wording.format(**said), answer, wrong, (values[name],))
