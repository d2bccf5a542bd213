//! The methods of the field's papers that this program has, each with what stands behind the epsilon that is printed for it.

use serde::Serialize;

/// What stands behind the epsilon of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// A proof.
    Certified,
    /// None: under `--research` it runs and compares, its epsilon is NOT A DP GUARANTEE, and nothing of it can be released.
    Research,
    /// It helps to choose numbers, and spends nothing.
    Planning,
}

impl Label {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Label::Certified => "certified",
            Label::Research => "research: NOT A DP GUARANTEE",
            Label::Planning => "planning",
        }
    }
}

/// A method.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Entry {
    pub name: &'static str,
    /// Who proposed it, and where.
    pub reference: &'static str,
    pub label: Label,
    /// What chooses it: settings, or a command.
    pub key: &'static str,
}

const fn certified(name: &'static str, reference: &'static str, key: &'static str) -> Entry {
    Entry {
        name,
        reference,
        label: Label::Certified,
        key,
    }
}

const fn research(name: &'static str, reference: &'static str, key: &'static str) -> Entry {
    Entry {
        name,
        reference,
        label: Label::Research,
        key,
    }
}

const fn planning(name: &'static str, reference: &'static str, key: &'static str) -> Entry {
    Entry {
        name,
        reference,
        label: Label::Planning,
        key,
    }
}

/// All of them. Where a key begins with `evaluate.dp_direct`, it is of classifiers: `task = "classify"`, or the arm.
pub const METHODS: &[Entry] = &[
    certified(
        "DP-SGD",
        "Abadi et al. 2016, arXiv 1607.00133",
        "finetune.optimizer=\"sgd\"",
    ),
    certified(
        "DP-SGD with momentum",
        "Polyak 1964",
        "finetune.optimizer=\"sgd\", finetune.momentum=0.9",
    ),
    certified(
        "DP-AdamW",
        "Loshchilov and Hutter 2019, arXiv 1711.05101",
        "finetune.optimizer=\"adamw\"",
    ),
    certified(
        "DP-AdamBC",
        "Tang et al. 2024, arXiv 2312.14334",
        "finetune.optimizer=\"adam-bc\"",
    ),
    certified(
        "decoupled weight decay",
        "Loshchilov and Hutter 2019, arXiv 1711.05101",
        "finetune.weight_decay=0.01",
    ),
    certified(
        "flat clipping",
        "Abadi et al. 2016, arXiv 1607.00133",
        "finetune.clipping=\"flat\"",
    ),
    certified(
        "AUTO-S",
        "Bu et al. 2023, arXiv 2206.07136",
        "finetune.clipping=\"automatic\"",
    ),
    certified(
        "DP-NSGD",
        "Yang et al. 2022, arXiv 2206.13033",
        "finetune.clipping=\"automatic\", finetune.clipping_regularizer=0.1",
    ),
    certified(
        "LoRA",
        "Hu et al. 2021, arXiv 2106.09685; Yu et al. 2022, arXiv 2110.06500",
        "finetune.method=\"lora\"",
    ),
    certified(
        "QLoRA",
        "Dettmers et al. 2023, arXiv 2305.14314",
        "finetune.method=\"qlora\"",
    ),
    certified(
        "all weights, by ghost norms",
        "Li et al. 2022, arXiv 2110.05679; Bu et al. 2022, arXiv 2205.10683",
        "finetune.method=\"full\"",
    ),
    certified(
        "BitFit",
        "Bu et al. 2022, arXiv 2210.00036",
        "finetune.method=\"bitfit\"",
    ),
    certified(
        "LoRA-FA: frozen A",
        "Zhang et al. 2023, arXiv 2308.03303",
        "finetune.method=\"lora-fa\"",
    ),
    certified(
        "prompt tuning",
        "Lester et al. 2021, arXiv 2104.08691",
        "finetune.method=\"soft-prompt\"",
    ),
    certified("(IA)³", "Liu et al. 2022, arXiv 2205.05638", "finetune.method=\"ia3\""),
    certified(
        "prefixes of keys and values",
        "Li and Liang 2021, arXiv 2101.00190",
        "evaluate.dp_direct.method=\"prefix\"",
    ),
    certified(
        "last layer of a frozen encoder",
        "Mehta et al. 2022, arXiv 2205.02973",
        "evaluate.dp_direct.method=\"last-layer\"",
    ),
    certified(
        "softmax regression on public features",
        "Mehta et al. 2022, arXiv 2205.02973",
        "evaluate.dp_direct.method=\"features\"",
    ),
    certified(
        "least squares by noisy normal equations",
        "Mehta et al. 2022, arXiv 2211.13403",
        "evaluate.dp_direct.update={kind=\"normal-equations\"}",
    ),
    certified(
        "DP-Flat within a layer, by earlier steps",
        "Chen et al. 2024, arXiv 2403.04124; Park et al. 2023, arXiv 2306.05651",
        "finetune.update={kind=\"flat\"}",
    ),
    certified(
        "DP-Flat within a layer, by each record",
        "Chen et al. 2024, arXiv 2403.04124",
        "evaluate.dp_direct.update={kind=\"flat\",ascent=\"record\"}",
    ),
    certified(
        "DP-Flat across layers, chosen on public records",
        "Chen et al. 2024, arXiv 2403.04124",
        "evaluate.dp_direct.method=\"prefix\", evaluate.dp_direct.prefix_layers=2",
    ),
    certified(
        "DP-Flat across models, toward a public reference",
        "Chen et al. 2024, arXiv 2403.04124",
        "evaluate.dp_direct.toward={strength=0.1}",
    ),
    certified(
        "DP-ZO, DPZero",
        "Tang et al. 2024, arXiv 2401.04343; Zhang et al. 2024, arXiv 2310.09639",
        "finetune.update={kind=\"zeroth-order\"}",
    ),
    certified(
        "DP-ZO with Laplace noise",
        "Tang et al. 2024, arXiv 2401.04343",
        "finetune.noise=\"exact-laplace\", finetune.update={kind=\"zeroth-order\",directions=1}",
    ),
    certified(
        "GEP, public anchors",
        "Yu et al. 2021, arXiv 2102.12677",
        "evaluate.dp_direct.update={kind=\"projection\"}",
    ),
    certified(
        "noise on coefficients of public directions (PE-SGD's)",
        "Zou et al. 2026, ICLR",
        "evaluate.dp_direct.update={kind=\"candidates\"}",
    ),
    certified(
        "ModelMix",
        "Xiao et al. 2022, arXiv 2210.03843; charged without its amplification",
        "finetune.optimizer=\"model-mix\"",
    ),
    certified(
        "risk-calibrated noise",
        "Kulynych et al. 2024, arXiv 2407.02191; Gomez et al. 2025",
        "finetune.risk={right_at_even_odds=0.6}",
    ),
    research(
        "LMO-DP: Laplace noise of mixed scales",
        "Yang et al. 2024, arXiv 2405.18776",
        "finetune.noise=\"laplace-mixture\", research=true",
    ),
    certified(
        "random allocation (balls and bins)",
        "Chua et al. 2025, arXiv 2412.16802; Feldman and Shenfeld 2026, arXiv 2602.17284",
        "finetune.sampler=\"random-allocation\"",
    ),
    certified(
        "DP-FTRL: banded matrix factorisation, amplified",
        "Choquette-Choo et al. 2023, arXiv 2306.08153; Kalinin and Lampert 2024, arXiv 2405.13763",
        "finetune.bands=2",
    ),
    planning(
        "TAN",
        "Sander et al. 2023, arXiv 2210.03403",
        "dpsynth calibrate --records N",
    ),
    planning(
        "Edgeworth accountant (EW-Tune's)",
        "Wang et al. 2022, arXiv 2206.04236; Behnia et al. 2022, arXiv 2210.15042",
        "dpsynth calibrate --compare",
    ),
];
