//! What every file of a release says in the same words: the guarantee whole (P10), what it means, and its limits.

use serde_json::Value;

use super::attacks::Attacks;
use super::{Composed, Facts};
use crate::config::{Contrast, Method, NoiseKind, RefineAction, Strength, Update};
use crate::documents::Lexicon;
use crate::number::{delta, significant, up};
use crate::privacy::mechanisms::{Stated, SubsampledGaussianStated};
use crate::privacy::{Guarantee, Sampler, Unit};

/// Without one of these epsilon means nothing (P10).
pub const NEEDED: [&str; 6] = ["epsilon", "delta", "adjacency", "unit", "sampler", "accountant"];

/// What of [`NEEDED`] a guarantee lacks.
pub fn lacking(guarantee: &Guarantee) -> Vec<&'static str> {
    let values = guarantee.values();
    let given = |key: &str| match values.get(key) {
        Some(Value::Number(n)) => n.as_f64().is_some_and(|v| v > 0.0 && v.is_finite()),
        Some(Value::String(s)) => !s.is_empty(),
        _ => false,
    };
    NEEDED.into_iter().filter(|key| !given(key)).collect()
}

/// Who is protected, in a few words.
pub fn unit(unit: &Unit) -> String {
    match unit {
        Unit::Record => "one record (one text with its labels)".into(),
        Unit::Group { column, max_records } => {
            format!("everything that shares a value of `{column}` (of which at most {max_records} records were used)")
        }
    }
}

/// What epsilon bounds of `what` ("This dataset"), in plain words.
pub fn plain(what: &str, protected: &Unit, guarantee: &Guarantee) -> String {
    let epsilon = guarantee.epsilon;
    // As many decimals as it takes to show that it is not everything.
    let doubt = 100.0 / (1.0 + epsilon.exp());
    let sure = up(100.0 - doubt, (-doubt.log10().floor()).clamp(1.0, 6.0) as usize);
    format!(
        "{what} tells only so much about whether {} was among the private data. Adding or \
         removing it changes the probability of every possible outcome by a factor of at most e^{} ≈ {}, except for an \
         additional probability of at most {}. In other words: someone for whom it was an even chance before can be at \
         most {sure} % sure afterwards (up to that additional probability), whatever else they know and whatever they \
         compute.",
        unit(protected),
        up(epsilon, 3),
        factor(epsilon.exp()),
        delta(guarantee.delta, 2),
    )
}

/// What `attacks` can do at most, in a sentence for people who know no statistics.
pub fn attacks(attacks: &Attacks, protected: &Unit) -> String {
    let seldom = &attacks.at[0];
    format!(
        "Whoever tries to find out whether {} was among the private data, and knows everything else, is right at most {} % of \
         the time where both are equally likely. If they may accuse at most 1 in 1,000 of those who were not in it, they \
         recognise at most {} % of those who were.",
        unit(protected),
        up(100.0 * attacks.right_at_even_odds, 1),
        up(100.0 * seldom.true_positive_rate_at_most, 1),
    )
}

/// A factor rounded up, with about three digits.
fn factor(value: f64) -> String {
    match value {
        v if v < 100.0 => up(v, 2),
        v if v < 1e6 => format!("{:.0}", v.ceil()),
        v => delta(v, 1),
    }
}

/// What neighbours are.
pub fn neighbours(protected: &Unit) -> String {
    format!(
        "Two datasets are neighbours where one is the other with {} added or removed.",
        unit(protected)
    )
}

/// What was declared public, and is not protected.
pub fn declared(size: u64, guarantee: &Guarantee) -> String {
    let counts = match guarantee.releases.iter().find_map(Stated::counted) {
        Some(what) => format!("{what} were counted with noise that is part of epsilon"),
        None => "the label proportions were declared".into(),
    };
    format!(
        "Declared public and not protected: the number of units ({size}), the columns, the names of the labels, the \
         prompts and every setting of the run; {counts}."
    )
}

/// How the model was made, step by step.
pub fn training(facts: &Facts) -> Vec<String> {
    let f = &facts.config.finetune;
    let trained = match f.method {
        Method::Lora => format!("in factors of low rank ({}) beside its linear maps", f.rank),
        Method::Qlora => format!(
            "in factors of low rank ({}) beside its linear maps, which stay in a few bits a weight",
            f.rank
        ),
        Method::LoraFa => format!(
            "in the second of two factors of low rank ({}) beside its linear maps, the first as they were drawn",
            f.rank
        ),
        Method::Bitfit => "in what its norms multiply by and in what it adds after maps and norms".into(),
        Method::Ia3 => {
            "in what its keys, values and inner activations (of GPT-2 its queries too) are multiplied by".into()
        }
        Method::SoftPrompt => format!(
            "in what is added to the embeddings of a prompt's first {} tokens",
            f.soft_tokens()
        ),
        Method::Full => "in all its weights".into(),
    };
    let mut out = Vec::new();
    if f.warm_start.records > 0 {
        out.push(format!(
            "Before anything private was read, the base model was trained on {} records of its own making.",
            f.warm_start.records
        ));
    }
    let said = |number: fn(&SubsampledGaussianStated) -> u64| {
        let training = facts.guarantee.training();
        training.map_or("?".into(), |training| number(training).to_string())
    };
    let step = match f.update {
        Update::ZerothOrder { directions, .. } => format!(
            "how the loss of each differs along {directions} random directions, bounded in {}, noise added to \
             the sum (differentially private steps of zeroth order)",
            match f.noise {
                NoiseKind::ExactLaplace => "the sum of sizes",
                NoiseKind::ExactGaussian | NoiseKind::Gaussian | NoiseKind::LaplaceMixture => "norm",
            }
        ),
        Update::Flat { .. } => {
            "the gradient of each, taken a short way up along earlier steps, bounded in norm, noise \
                                added to their sum (differentially private sharpness-aware training)"
                .into()
        }
        _ => "the gradient of each bounded in norm, noise added to their sum (differentially private stochastic \
              gradient descent)"
            .to_string(),
    };
    let sample = match Sampler::read(&facts.guarantee.sampler) {
        Some(Sampler::Allocated { .. }) => "a random share (random allocation)",
        Some(Sampler::Cyclic { .. }) => "a Poisson sample of one part of them, in turn,",
        _ => "a Poisson sample",
    };
    out.push(format!(
        "The base model was fine-tuned on the private records {trained}: {} steps, each on {sample} of about {} \
         units, {step}.",
        said(|training| training.steps),
        said(|training| training.expected_batch_size),
    ));
    out
}

/// What all runs on the private dataset have spent.
pub fn composition(c: &Composed) -> String {
    let not_private = match c.not_private {
        0 => String::new(),
        n => format!(
            " Beside them {n} with a fixed seed read the private texts: no epsilon covers these, and nothing of theirs may be published."
        ),
    };
    let research = match c.research {
        0 => String::new(),
        n => format!(" NOT A DP GUARANTEE: {n} of them used a mechanism whose cost nobody has proved."),
    };
    let whose = match &c.population {
        Some(population) => format!("of the population `{population}`"),
        None => "of these private texts".into(),
    };
    let runs = match c.runs {
        1 => format!("The one run in the ledger {whose} has"),
        n => format!("All {n} runs in the ledger {whose} have together"),
    };
    let others = match c.declared_disjoint {
        true => {
            " The owner declared that nobody in the private dataset is in another: runs on datasets that share rows with it are not all counted."
        }
        false => {
            " Runs on other datasets are among them if the program found, in the same folder of ledgers, that both share a text, a unit or a training file."
        }
    };
    let apart = match c.declared_apart {
        true => {
            " Another dataset was declared to share nobody with the private one: runs on that dataset are not all counted."
        }
        false => "",
    };
    let adaptive = c.epsilon_if_adaptive.map_or(String::new(), |epsilon| {
        format!(
            " This sum holds if all settings were fixed before any output was seen. If later runs were chosen after seeing \
             earlier outputs, a privacy filter gives {} at the same delta.",
            up(epsilon, 3)
        )
    });
    format!(
        "{runs} spent epsilon {} at delta {} (adjacency {}, unit {}, sampler {}, accountant {}).{adaptive} The ledger refuses what would pass its total.{others}{apart}{research}{not_private}",
        up(c.epsilon, 3),
        delta(c.delta, 2),
        c.adjacency,
        c.unit,
        c.sampler,
        c.accountant,
    )
}

/// How the records were made, step by step.
pub fn making(facts: &Facts) -> Vec<String> {
    let s = &facts.config.sample;
    let mut out = training(facts);
    let (weight, found) = match s.guidance {
        Strength::Fixed(weight) => (Some(weight), ""),
        Strength::Found(_) => (
            (facts.synthetic.as_ref()).and_then(|s| Some(s.guidance.as_ref()?.guidance)),
            ", found from records of its own alone",
        ),
    };
    let contrast = match s.guidance_contrast {
        Contrast::Labels => "other labels",
        Contrast::Marginal => "a prompt that names no label",
    };
    out.push(format!(
        "The fine-tuned model then wrote records label by label, at temperature {}{}{}.",
        s.temperature,
        match s.top_p < 1.0 {
            true => format!(
                ", each token from the most probable ones that hold {} of the probability",
                s.top_p
            ),
            false => String::new(),
        },
        match weight.filter(|weight| *weight > 0.0) {
            None => String::new(),
            Some(weight) => format!(
                ", guided by contrast with {contrast} (weight {}{found})",
                significant(weight, 3)
            ),
        }
    ));
    out.extend(lifting(facts));
    if s.refine.is_on() {
        let lost = match s.refine.action {
            RefineAction::Drop => "dropped, and others drawn in their place",
            RefineAction::Relabel => "given the label that they showed",
            RefineAction::Score => "counted and kept",
        };
        let judge = match facts.lexicon.as_ref().is_some_and(Lexicon::judges) {
            true => "Scorers of labels, trained privately as a part of the guarantee, scored its records",
            false => "It scored its own records",
        };
        let none = match facts.config.lexicon.is_on() {
            true => "No private record took part.",
            false => "No private record and no classifier trained on private records took part.",
        };
        out.push(format!(
            "{judge} under all labels or some; those that did not show their label were {lost}. {none}"
        ));
    }
    out
}

/// What the lexicon did to decoding; none where there is none.
fn lifting(facts: &Facts) -> Option<String> {
    facts.lexicon.as_ref().filter(|lexicon| !lexicon.tokens.is_empty())?;
    let sampled = facts.synthetic.as_ref();
    let (weight, found) = match facts.config.sample.lexicon_weight {
        Strength::Fixed(weight) => (weight, ""),
        Strength::Found(_) => (
            sampled?.lexicon_weight.as_ref()?.weight,
            ", found such that its records show their labels as clearly as real ones do, which is a noisy figure under the guarantee",
        ),
    };
    let mut out = Vec::new();
    if weight > 0.0 {
        out.push(format!(
            "Tokens that speak for the wanted label were made likelier, by counts and weights that were learned privately as a part of the guarantee (weight {}{found}).",
            significant(weight, 3)
        ));
    }
    let domain = facts.config.sample.domain_weight;
    if facts.lifted_to_domain {
        out.push(format!(
            "Tokens that private records have more often than the model writes them were made likelier, and those that they have less often unlikelier, by the same counts (weight {}).",
            significant(domain, 3)
        ));
    }
    (!out.is_empty()).then(|| out.join(" "))
}

/// What one must not expect.
pub fn limits(facts: &Facts) -> Vec<String> {
    let mut out = vec![format!(
        "The guarantee is for {}. A person behind several of these is protected less, the more there are.",
        unit(&facts.unit())
    )];
    out.push(
        "Rare labels and unusual texts suffer most from clipping and noise: the records underrepresent them.".into(),
    );
    out.push("The records are written by a language model: names, places and events in them are made up, taken from what the base model knew, or come from private records within the guarantee; facts are unreliable, and the base model's biases are passed on.".into());
    out.push(format!(
        "A record has at most {} tokens; longer ones are cut.",
        facts.config.drawn_tokens()
    ));
    out.push(
        "Labels are what the records were drawn for (or relabelled to by the model); no person checked them.".into(),
    );
    out
}

/// Why nothing measured on private records is published.
pub const WITHHELD: &str = "Scores on private records (accuracy of classifiers tested on them, distance to them, the audit's numbers) are withheld: they are computed from private records without noise, so that publishing them would be outside the guarantee.";

/// What the base model may have seen.
pub const CONTAMINATION: &str = "The base model was trained on public text and may have seen public benchmarks, with their answers. What it knew before is not covered by the guarantee, and a model that is trained on these records and scored on such a benchmark may look better than it is.";

/// Who is trusted with what.
pub const TRUST: &str = "Central model: whoever ran the program saw the private records. The adversary sees the synthetic records, the trained model, all noised sums and every setting, and knows everything but one unit (one record, unless a unit is declared).";

/// What the guarantee leaves out.
pub const OUTSIDE: &str = "Outside the guarantee: time, memory and power of the machine that trained; who may read the private records and how they were collected and kept; settings that were chosen by looking at results on private records; what the base model knew before; what the owner decided after seeing private results. Which records or weights were published follows from what the guarantee covers and from public settings. Whether they were published also depended on two checks that read private records without noise: a replay of the sensitivity bound, and steps of the training loop. Neither can fail while the guarantee holds.";
