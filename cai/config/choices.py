"""The closed sets of values that a key may have."""

from enum import Enum


class ModelSource(Enum):
    """Where the weights come from."""

    embedded = "embedded"
    tiny = "tiny"
    hub = "hub"
    folder = "folder"


class Dtype(Enum):
    """Precision of the weights and of the arithmetic."""

    fp32 = "fp32"
    bf16 = "bf16"


class Quantization(Enum):
    """Packing of the frozen base weights by bitsandbytes."""

    none = "none"
    nf4 = "nf4"
    int8 = "int8"


class Dialect(Enum):
    """How a conversation becomes tokens."""

    chat = "chat"
    text = "text"


class ReplyClassifier(Enum):
    """How the style of a reply is found."""

    states = "states"
    rules = "rules"


class DataSource(Enum):
    """Where the prompts and comparisons come from."""

    builtin = "builtin"
    hh_rlhf = "hh_rlhf"
    files = "files"


class RowFormat(Enum):
    """The format of a file of rows."""

    auto = "auto"
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"
    lines = "lines"


class BadRows(Enum):
    """What becomes of rows that can't be used."""

    strict = "strict"
    skip = "skip"


class TooLong(Enum):
    """What becomes of a row that does not fit the model's context."""

    skip = "skip"
    error = "error"
    cut_left = "cut_left"


class Start(Enum):
    """The model that a training stage starts from."""

    base = "base"
    helpful = "helpful"
    sft = "sft"


class Labels(Enum):
    """Who says which reply is less harmful."""

    ai = "ai"
    human = "human"
    none = "none"


class Policy(Enum):
    """What trains the policy."""

    ppo = "ppo"
    dpo = "dpo"


class Revisions(Enum):
    """Which rounds of revision SL-CAI is trained on."""

    all = "all"
    last = "last"


class HelpfulSource(Enum):
    """Who answers the helpful prompts that SL-CAI is trained on."""

    human = "human"
    model = "model"


class Schedule(Enum):
    """The learning rate over the steps of a stage."""

    constant = "constant"
    cosine = "cosine"


class Method(Enum):
    """How the feedback model is asked which reply is better."""

    choice = "choice"
    contrast = "contrast"
    probe = "probe"


class Principles(Enum):
    """How many principles judge one pair."""

    sample = "sample"
    ensemble = "ensemble"


class Average(Enum):
    """What is averaged over principles, orders and chains."""

    probability = "probability"
    log_odds = "log_odds"


class LabelKind(Enum):
    """What becomes of a probability when it is made a label."""

    soft = "soft"
    hard = "hard"
    clamped = "clamped"


class KLControl(Enum):
    """Whether the KL coefficient follows a target."""

    fixed = "fixed"
    adaptive = "adaptive"


class CriticStart(Enum):
    """What the critic is before its first update."""

    pm = "pm"
    zero = "zero"


class Guard(Enum):
    """What to do when the twin PM falls while the training PM's score rises."""

    off = "off"
    warn = "warn"
    stop = "stop"
    roll_back = "roll_back"


class PaperMode(Enum):
    """How the paper's released tests are taken."""

    zero_shot = "zero_shot"
    few_shot = "few_shot"
    cot = "cot"
    cot_5 = "cot_5"
    pm = "pm"


class TrackingMode(Enum):
    """What Weights & Biases does."""

    offline = "offline"
    online = "online"
    off = "off"


class JudgeSource(Enum):
    """Where the judge of all systems comes from."""

    labels = "labels"
    folder = "folder"
    endpoint = "endpoint"


class JudgeMethod(Enum):
    """How a judge of one's own is made from comparisons."""

    readout = "readout"
    adapter = "adapter"


class Outcome(Enum):
    """What an experiment may be about, measured on the policy of each arm."""

    harmlessness_elo = "harmlessness_elo"
    helpfulness_elo = "helpfulness_elo"
    evasiveness = "evasiveness"
    engaged = "engaged"
    over_refusal = "over_refusal"


class Accelerator(Enum):
    """The kind of device."""

    auto = "auto"
    cpu = "cpu"
    gpu = "gpu"
    mps = "mps"


class OptimizerKind(Enum):
    """AdamW with its state in float32, or by bitsandbytes in eight bits, paged or not."""

    adamw = "adamw"
    adamw_8bit = "adamw_8bit"
    paged_adamw_8bit = "paged_adamw_8bit"
