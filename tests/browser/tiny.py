"""Made-up records and configurations for runs of seconds: `page` with two labels, `begun` that stops after training,
`many` with 30 labels whose names and texts try to break out of HTML."""

import csv
import sys
from pathlib import Path

place, model = Path(sys.argv[1]), Path(sys.argv[2])
WHO = ["the cast", "the story", "the music", "the camera", "the director", "<script>alert(1)</script>", "</script> & \"all\""]
GOOD = ["is a delight", "moves and surprises", "could not be better", "is funny and warm"]
BAD = ["is a bore", "drags on and on", "could not be worse", "is loud and empty"]


def write(name: str, rows: list[tuple[str, str]]) -> None:
    with open(place / name, "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])


def two(count: int) -> list[tuple[str, str]]:
    return [
        (f"{WHO[i % len(WHO)]} of film {i} {(GOOD, BAD)[i % 2][i // 2 % 4]}", ("positive", "negative")[i % 2])
        for i in range(count)
    ]


MANY = [f"a rather long name of intent number {i}" for i in range(29)] + ["</script><script>alert(2)</script>"]


def many(count: int) -> list[tuple[str, str]]:
    return [(f"{WHO[i % len(WHO)]} asks about {MANY[i % 30][-9:]} {i}", MANY[i % 30]) for i in range(count)]


def config(name: str, train: str, test: str, labels: list[str], records: int) -> None:
    names = "[" + ", ".join("'" + label + "'" for label in labels) + "]"
    (place / f"{name}.toml").write_text(f"""
name = "{name}"
[dataset]
train = "{train}"
test = "{test}"
labels = [{{ column = "label", names = {names} }}]
public_size = 240
total_epsilon = 40.0
[model]
path = "{model}"
[prompt]
user = "Write a {{{{ label }}}} text."
[prepare]
max_tokens = 16
[finetune]
epsilon = 4.0
expected_batch_size = 8
steps = 6
rank = 2
[finetune.objective]
contrast = 0.0
[sample]
records = {records}
max_tokens = 12
batch_size = 8
guidance = 0.0
[sample.refine]
min_posterior = 0.0
[evaluate]
encoder = false
seeds = 2
size_curve = [0.25, 0.5, 1.0]
""")


write("train.csv", two(240))
write("test.csv", two(80))
write("many-train.csv", many(240))
write("many-test.csv", many(90))
config("page", "train.csv", "test.csv", ["negative", "positive"], 48)
config("begun", "train.csv", "test.csv", ["negative", "positive"], 48)
config("many", "many-train.csv", "many-test.csv", MANY, 60)
