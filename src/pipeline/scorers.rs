//! The scorers that a run learned privately: by tokens, and by whole texts through a frozen sentence encoder. Weighed together
//! they judge drawn records.

use super::Pipeline;
use crate::config::DeviceChoice;
use crate::documents::Lexicon;
use crate::evaluation::embed::SentenceEncoder;
use crate::evaluation::encoder::EncoderFiles;
use crate::machine::workers::Workers;
use crate::models::device;
use crate::records::Vocabulary;
use crate::run::lexicon_of;
use crate::sampling::evidence::Evidence;
use crate::{Error, Result, assets};

/// What vectors are scaled to, of length 1 before: as long as a record's tokens are to their scorer.
const LENGTH: f32 = 4.0;

/// Judges texts: the sum of what its scorers say of them.
pub struct Scorers<'a> {
    tokens: Option<Tokens<'a>>,
    sense: Option<Sense>,
}

/// Judges texts by their tokens.
struct Tokens<'a> {
    evidence: Evidence,
    vocabulary: &'a Vocabulary,
    /// So many of a text are looked at.
    most: usize,
}

/// Judges texts by what they mean.
struct Sense {
    encoder: Encoder,
    /// Of each joint label, a weight for each number of a vector.
    weights: Vec<Vec<f32>>,
}

/// A frozen encoder. Each text goes through it by itself, without padding, on a CPU: a record more or less changes no other
/// record's vector (P5).
pub struct Encoder {
    sentences: SentenceEncoder,
    workers: Workers,
}

impl Encoder {
    /// The encoder of `files`, which reads a text's first `max_tokens` word pieces.
    ///
    /// # Errors
    /// Files that cannot be read or do not belong together.
    pub fn open(files: &EncoderFiles, max_tokens: usize) -> Result<Self> {
        let device = device::choose(DeviceChoice::Cpu)?;
        Ok(Encoder {
            sentences: SentenceEncoder::open(files, max_tokens, &device)?,
            workers: Workers::on(&device),
        })
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.sentences.width()
    }

    /// The vectors of texts, as the scorer sees them.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn embed<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Vec<f32>>> {
        let texts: Vec<&str> = texts.into_iter().collect();
        let of = |text: &&str| -> Result<Vec<f32>> {
            let mut vectors = self.sentences.embed([*text], &mut |_| Ok(()))?;
            let mut vector = vectors.pop().unwrap_or_default();
            vector.iter_mut().for_each(|v| *v *= LENGTH);
            Ok(vector)
        };
        self.workers.map(&texts, of).into_iter().collect()
    }
}

/// The encoder that the configuration names.
///
/// # Errors
/// Usage: it names none. Other: it cannot be fetched or read.
pub fn encoder(p: &Pipeline) -> Result<Encoder> {
    let l = &p.config.lexicon;
    let named = l.encoder();
    let named = named.ok_or_else(|| Error::usage("`lexicon.encoder` names no encoder"))?;
    let model = assets::encoder(named, &p.places.assets, p.progress)?;
    Encoder::open(&EncoderFiles::of(&model)?, l.encoder_max_tokens)
}

impl<'a> Scorers<'a> {
    /// What the run learned; none where it learned none, or too little to judge by.
    ///
    /// # Errors
    /// Data: it is damaged. Other: the encoder cannot be fetched or read.
    pub fn of(p: &Pipeline, vocabulary: &'a Vocabulary) -> Result<Option<Self>> {
        let lexicon = lexicon_of(&p.folder, &p.config)?;
        let Some(lexicon) = lexicon.filter(Lexicon::judges) else {
            return Ok(None);
        };
        let tokens = lexicon.evidence_beside_sense().map(|weights| Tokens {
            evidence: Evidence::new(weights),
            vocabulary,
            most: p.config.lexicon.max_tokens,
        });
        Ok(Some(Scorers {
            tokens,
            sense: Sense::of(p, &lexicon)?,
        }))
    }

    /// log p(y|x) of each label, but for a constant, for each text. How often a label occurs is left out.
    ///
    /// # Errors
    /// A text that a tokenizer refuses.
    pub fn scores(&self, texts: &[&str]) -> Result<Vec<Vec<f64>>> {
        let mut out: Vec<Vec<f64>> = match &self.tokens {
            Some(tokens) => texts.iter().map(|text| tokens.scores(text)).collect::<Result<_>>()?,
            None => Vec::new(),
        };
        if let Some(sense) = &self.sense {
            let by_sense = sense.scores(texts)?;
            if out.is_empty() {
                return Ok(by_sense);
            }
            for (sum, more) in out.iter_mut().zip(by_sense) {
                sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
            }
        }
        Ok(out)
    }
}

impl Tokens<'_> {
    fn scores(&self, text: &str) -> Result<Vec<f64>> {
        Ok(self.evidence.scores(&self.vocabulary.text(text, self.most)?))
    }
}

impl Sense {
    fn of(p: &Pipeline, lexicon: &Lexicon) -> Result<Option<Self>> {
        let (Some(rows), Some(trust)) = (&lexicon.sense, lexicon.trust_of_sense()) else {
            return Ok(None);
        };
        let encoder = encoder(p)?;
        if rows.iter().any(|row| row.len() != encoder.width() + 1) {
            return Err(Error::data(format!(
                "{} has weights for another encoder",
                p.folder.lexicon().display()
            ))
            .hint("put it back as it was"));
        }
        let own = |row: &Vec<f32>| row[..encoder.width()].iter().map(|w| w * trust).collect();
        let weights = rows.iter().map(own).collect();
        Ok(Some(Sense { encoder, weights }))
    }

    fn scores(&self, texts: &[&str]) -> Result<Vec<Vec<f64>>> {
        let vectors = self.encoder.embed(texts.iter().copied())?;
        let score = |vector: &Vec<f32>, row: &Vec<f32>| vector.iter().zip(row).map(|(x, w)| f64::from(x * w)).sum();
        let of = |vector: &Vec<f32>| self.weights.iter().map(|row| score(vector, row)).collect();
        Ok(vectors.iter().map(of).collect())
    }
}
