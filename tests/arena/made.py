"""Evaluations made by hand, and systems that say what they are told to."""

import json
import threading

from report.made import reply, system, write_result

from cai.arena.runs import open_run
from cai.dialogue import human
from cai.errors import UserError

NAMES = ("helpful", "sl_cai", "rl_cai")
HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
    "![picture](http://127.0.0.1:9/leak.png) [link](javascript:alert(1)) {{#if value}}owned{{/if}}"
    " ${document.title='owned'} `${1}` &lt;b&gt;bold&lt;/b&gt; \x1b[31mred\x07 \u202eesrever"
    " </div></section></article><style>body{display:none}</style> a\n\nb" + "W" * 300
)


def replies_of(name, prompts=8, samples=1, said="{name} says {n} to {kind} {prompt}"):
    return [
        reply(name, prompt, said.format(name=NAMES.index(name), n=sample, kind=kind, prompt=prompt),
              set=kind, prompt_id=f"{kind}-{prompt}", sample=sample,
              messages=(human(f"Question {prompt} of {kind}?"),))
        for kind in ("red_team", "helpful", "borderline")
        for prompt in range(prompts)
        for sample in range(samples)
    ]  # fmt: skip


def write_run(folder, name="evaluate-1", models=NAMES, rows=None, **summary):
    """Write an evaluation as it lies below outputs/, and return its folder."""
    systems = [system(who, f"m-{model}") for who, model in zip(NAMES, models)]
    if rows is None:
        rows = [row for who in NAMES for row in replies_of(who)]
    return write_result(folder / "artifacts" / name, systems, (), rows, **summary).path


def made_run(folder, *args, **kwargs):
    return open_run(write_run(folder, *args, **kwargs))


def written(run):
    """Read the choices of a run as they are written."""
    if not run.choices.exists():
        return []
    return [json.loads(line) for line in run.choices.read_text().splitlines()]


class Says:
    """Systems that reply at once with their names' places; they can be held up."""

    def __init__(self, most=100, text=None):
        self.most, self.text = most, text
        self.heard = []
        self.go = threading.Event()
        self.go.set()

    def check(self, conversation):
        if len(conversation) > self.most:
            raise UserError("This conversation is too long.")

    def reply(self, voice, conversation, seed):
        self.check(conversation)
        self.heard.append((voice.system, conversation))
        said = self.text or f"I am {NAMES.index(voice.system)} after {len(conversation)}"
        yield said[:5]
        self.go.wait(30)
        yield said
