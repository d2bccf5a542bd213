//! What labels look like, as counted privately: `model/lexicon.json`.
//!
//! The counts come with noise and were paid for. What is made of them here (which tokens stand out of the noise, how much
//! each speaks for a label) reads nothing else.

use crate::document;
use crate::sampling::evidence::Weights;

/// A token stands out where it is counted more often than this many standard deviations of the noise in its count.
const STANDS_OUT: f64 = 3.0;

/// What is added to each label's count of a token, over all labels together, besides the noise's deviation: a token of few
/// records says little (Laplace's rule, with more than one record).
const RECORDS: f64 = 100.0;

/// The share of real records whose label has to be clear to the scorers: with four draws a place, as many of drawn ones fill two
/// places of three.
const OFTEN: f64 = 0.25;

document! {
    /// Tokens by label.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Lexicon {
        /// Standard deviation of the noise in each count.
        public noise: f64,
        /// Tokens that stand out of the noise, the most telling first.
        post_processing tokens: Vec<u32>,
        /// The same as text.
        post_processing words: Vec<String>,
        /// Of each joint label, the noisy count of each token: the records that have it, each scaled to at most the largest norm.
        charged counts: Vec<Vec<f32>>,
        /// Of each joint label, each token's weight in nats: naive Bayes.
        post_processing weights: Vec<Vec<f32>>,
        /// The scorer's, for the first of the tokens; none where none was trained.
        charged scorer: Option<Vec<Vec<f32>>>,
        /// The scorer of whole texts: of each joint label a weight for each number of a text's vector; none where none was
        /// trained.
        charged sense: Option<Vec<Vec<f32>>>,
        /// What the scores of the tokens' scorer count for by themselves: times this they are log-odds. None where there is none.
        charged own_trust: Option<f32>,
        /// The mean posterior that the tokens' scorer, so trusted, gives a record's own label, in all records together.
        charged shown: Option<f64>,
        /// The same of the records whose label is clear to both scorers.
        charged shown_clear: Option<f64>,
        /// The share of those records. None where there is no scorer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        charged clear_share: Option<f64>,
        /// What the scores of both scorers count for together, the tokens' first, where they are there.
        charged trust: Vec<f32>,
    }
}

impl Lexicon {
    /// Of noisy sums [labels · vocabulary], each with noise of deviation `noise`. `word` is a token as text, and none for those
    /// that stand for no text.
    pub fn of(noisy: &[f32], labels: usize, noise: f64, word: &dyn Fn(u32) -> Option<String>) -> Self {
        let vocabulary = noisy.len() / labels;
        let count = |label: usize, token: usize| f64::from(noisy[label * vocabulary + token]);
        let total = |token: usize| (0..labels).map(|label| count(label, token)).sum::<f64>();
        let threshold = STANDS_OUT * noise * (labels as f64).sqrt();
        let standing: Vec<usize> = (0..vocabulary)
            .filter(|token| total(*token) > threshold.max(f64::MIN_POSITIVE))
            .collect();
        let masses = (0..labels).map(|label| standing.iter().map(|token| count(label, *token)).sum());
        let shares = shares(masses.collect(), noise * (standing.len() as f64).sqrt());
        // How far its counts are from the labels' shares of its total: Pearson's chi-square, with the noise's variance.
        let telling = |token: usize| -> f64 {
            let expected = |label: usize| shares[label] * total(token);
            let parts = (0..labels).map(|l| (count(l, token) - expected(l)).powi(2) / (expected(l) + noise * noise));
            parts.sum()
        };
        let mut tokens: Vec<(usize, f64, String)> = standing
            .into_iter()
            .filter_map(|token| Some((token, telling(token), word(token as u32)?)))
            .collect();
        tokens.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));

        let smoothing = RECORDS / labels as f64 + noise;
        let weight = |label: usize, token: usize| {
            let expected = shares[label] * total(token);
            ((count(label, token).max(0.0) + smoothing) / (expected + smoothing)).ln() as f32
        };
        let by_label = |value: &dyn Fn(usize, usize) -> f32| -> Vec<Vec<f32>> {
            let of = |label: usize| tokens.iter().map(|(token, ..)| value(label, *token)).collect();
            (0..labels).map(of).collect()
        };
        Lexicon {
            noise,
            counts: by_label(&|label, token| count(label, token) as f32),
            weights: by_label(&weight),
            tokens: tokens.iter().map(|(token, ..)| *token as u32).collect(),
            words: tokens.into_iter().map(|(.., word)| word).collect(),
            scorer: None,
            sense: None,
            own_trust: None,
            shown: None,
            shown_clear: None,
            clear_share: None,
            trust: Vec::new(),
        }
    }

    /// What is wrong with it as the lexicon of a run with so many labels; none where nothing is.
    pub fn strange(&self, labels: usize) -> Option<&'static str> {
        let known = self.tokens.len();
        let is_of = |rows: &Vec<Vec<f32>>, fits: &dyn Fn(usize) -> bool| {
            let finite = |row: &Vec<f32>| fits(row.len()) && row.iter().all(|v| v.is_finite());
            rows.len() == labels && rows.iter().all(finite) && rows.windows(2).all(|w| w[0].len() == w[1].len())
        };
        let all = |len: usize| len == known;
        if self.words.len() != known || !is_of(&self.counts, &all) || !is_of(&self.weights, &all) {
            return Some("it has not a word, a count and a weight of each label for each token");
        }
        if self
            .scorer
            .as_ref()
            .is_some_and(|rows| !is_of(rows, &|len| len <= known))
        {
            return Some("its scorer has other labels or tokens");
        }
        if self.sense.as_ref().is_some_and(|rows| !is_of(rows, &|_| true)) {
            return Some("its scorer of whole texts has other labels");
        }
        let scorers = [&self.scorer, &self.sense].into_iter().flatten().count();
        let trusts = self.trust.iter().chain(&self.own_trust);
        let shown = [self.shown, self.shown_clear, self.clear_share];
        let known = shown.into_iter().flatten().all(|shown| (0.0..=1.0).contains(&shown));
        if self.trust.len() != scorers || trusts.copied().any(|t| !t.is_finite()) || !known {
            return Some("its scorers are not weighed");
        }
        None
    }

    /// Whether labels are clear to the scorers often enough for them to steer and judge by themselves: in few records of many
    /// labels the noise leaves little to learn, and then the model knows more.
    pub fn tells_labels(&self) -> bool {
        self.clear_share.is_none_or(|share| share >= OFTEN)
    }

    /// Whether its scorers judge drawn records.
    pub fn judges(&self) -> bool {
        !self.trust.is_empty() && self.tells_labels()
    }

    /// What tokens by themselves say of labels: the weights of their scorer as far as it is to be trusted, or of naive Bayes
    /// where there is none.
    pub fn evidence(&self) -> Weights {
        self.trusted(self.own_trust)
    }

    /// What tokens say beside what whole texts do; none where they have no scorer.
    pub fn evidence_beside_sense(&self) -> Option<Weights> {
        self.scorer.as_ref()?;
        Some(self.trusted(self.trust.first().copied()))
    }

    /// What the scorer of whole texts counts for; none where there is none.
    pub fn trust_of_sense(&self) -> Option<f32> {
        let trust = self.trust.last().copied().map(not_against);
        self.sense.as_ref().and(trust)
    }

    fn trusted(&self, trust: Option<f32>) -> Weights {
        let mut of_labels = self.scorer.clone().unwrap_or_else(|| self.weights.clone());
        if let Some(trust) = trust {
            let trust = not_against(trust);
            of_labels.iter_mut().flatten().for_each(|weight| *weight *= trust);
        }
        let tokens = of_labels.first().map_or(0, Vec::len);
        Weights {
            tokens: self.tokens[..tokens].to_vec(),
            of_labels,
        }
    }
}

/// A scorer that errs is not listened to, and not believed to say the opposite. What earlier versions wrote can be below 0.
fn not_against(trust: f32) -> f32 {
    trust.max(0.0)
}

/// Each label's share of noisy `masses`, pulled towards equal shares as far as their differences may be noise of deviation
/// `noise`; none is below a tenth of an equal one.
fn shares(masses: Vec<f64>, noise: f64) -> Vec<f64> {
    let labels = masses.len() as f64;
    let mean = (masses.iter().sum::<f64>() / labels).max(f64::MIN_POSITIVE);
    let seen = masses.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / labels;
    let true_part = if seen > 0.0 {
        (1.0 - noise * noise / seen).max(0.0)
    } else {
        0.0
    };
    let pulled: Vec<f64> = masses
        .iter()
        .map(|m| (mean + true_part * (m - mean)).max(0.1 * mean))
        .collect();
    let total: f64 = pulled.iter().sum();
    pulled.iter().map(|m| m / total).collect()
}
