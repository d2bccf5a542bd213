//! The tokenizer that a GGUF describes: byte-level BPE with its merges (GPT-2, SmolLM, Qwen, Llama 3), or SentencePiece's BPE with
//! scores in their place (Llama 2, Gemma).

use std::collections::{HashMap, HashSet};

use tokenizers::decoders::DecoderWrapper;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as Decoders;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::prepend::Prepend;
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::utils::Sequence as Normalizers;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer};

use crate::models::load::gguf::Gguf;
use crate::{Error, Result};

/// GGUF's token types.
const NORMAL: i64 = 1;
const CONTROL: i64 = 3;
const OF_THE_USER: i64 = 4;

/// What SentencePiece writes for a blank.
const BLANK: &str = "▁";

/// How Llama 3 parts a text, as its own `tokenizer.json` has it.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The same of Qwen 2, 2.5 and 3.
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The tokenizer, which reads control tokens where they are written, and the numbers of those.
///
/// # Errors
/// Data: one of another kind, or that is broken.
pub fn tokenizer(gguf: &Gguf) -> Result<(Tokenizer, HashSet<u32>)> {
    let kind = gguf.text("tokenizer.ggml.model")?;
    let split = gguf.text("tokenizer.ggml.pre").unwrap_or("default");
    let mut tokenizer = match (kind, parts(split)) {
        ("gpt2", Some(parts)) => byte_level(gguf, parts?)?,
        ("llama", _) => sentence_piece(gguf)?,
        _ => {
            return Err(Error::data(format!(
                "the model's tokenizer is {kind}/{split}, which is not supported"
            ))
            .hint("use the model's Hugging Face files, whose tokenizer.json says all, in the place of its GGUF"));
        }
    };
    let (tokens, types) = (of_all(gguf)?, gguf.integers("tokenizer.ggml.token_type")?);
    let of_type = |wanted: i64| {
        let typed = tokens.iter().zip(types).filter(move |(_, t)| **t == wanted);
        typed.map(|((token, id), _)| (*token, *id))
    };
    let (added, control): (Vec<AddedToken>, HashSet<u32>) = of_type(CONTROL)
        .map(|(token, id)| (AddedToken::from(token, true), id))
        .unzip();
    tokenizer.add_special_tokens(added).map_err(broken)?;
    let added = of_type(OF_THE_USER).map(|(token, _)| AddedToken::from(token, false).normalized(false));
    tokenizer.add_tokens(added.collect::<Vec<_>>()).map_err(broken)?;
    Ok((tokenizer, control))
}

fn broken(e: impl std::fmt::Display) -> Error {
    Error::data(format!("the model's tokenizer cannot be built: {e}")).hint("fetch the model again")
}

/// Every token with its number.
fn of_all(gguf: &Gguf) -> Result<Vec<(&str, u32)>> {
    let tokens = gguf.texts("tokenizer.ggml.tokens")?;
    Ok(tokens.iter().map(String::as_str).zip(0..).collect())
}

/// How a text is parted before bytes become tokens, by its name in GGUF; none of a name that is not known.
fn parts(name: &str) -> Option<Result<PreTokenizerWrapper>> {
    let bytes = |regex| ByteLevel::new(false, false, regex);
    let by = |pattern: &str| {
        let split = Split::new(
            SplitPattern::Regex(pattern.into()),
            SplitDelimiterBehavior::Isolated,
            false,
        );
        Ok(Sequence::new(vec![split.map_err(broken)?.into(), bytes(false).into()]).into())
    };
    Some(match name {
        "smollm" => Ok(Sequence::new(vec![Digits::new(true).into(), bytes(true).into()]).into()),
        "gpt-2" => Ok(bytes(true).into()),
        "llama-bpe" | "llama3" => by(LLAMA3),
        "qwen2" => by(QWEN2),
        _ => return None,
    })
}

fn byte_level(gguf: &Gguf, parts: PreTokenizerWrapper) -> Result<Tokenizer> {
    let vocabulary = of_all(gguf)?.into_iter().map(|(token, id)| (token.to_string(), id));
    let merges = gguf.texts("tokenizer.ggml.merges")?;
    let merges = merges.iter().filter_map(|m| m.split_once(' '));
    let bpe = BPE::builder()
        .vocab_and_merges(
            vocabulary.collect::<Vocab>(),
            merges.map(|(a, b)| (a.into(), b.into())).collect::<Merges>(),
        )
        // A word that is a token is that token: what Llama 3's merges do not always come to.
        .ignore_merges(matches!(gguf.text("tokenizer.ggml.pre"), Ok("llama-bpe" | "llama3")))
        .build()
        .map_err(broken)?;
    let mut out = Tokenizer::new(bpe);
    out.with_pre_tokenizer(Some(parts));
    out.with_decoder(Some(ByteLevel::new(false, false, true)));
    Ok(out)
}

/// Pieces are joined while the result is a piece, the one of the best score first; what is no piece is written in bytes.
fn sentence_piece(gguf: &Gguf) -> Result<Tokenizer> {
    let (tokens, scores) = (of_all(gguf)?, gguf.numbers("tokenizer.ggml.scores")?);
    let types = gguf.integers("tokenizer.ggml.token_type")?;
    if scores.len() != tokens.len() || types.len() != tokens.len() {
        return Err(broken("it has not a score and a type for each token"));
    }
    let normal = |id: u32| types[id as usize] == NORMAL;
    let pieces: HashMap<&str, u32> = tokens.iter().copied().filter(|(_, id)| normal(*id)).collect();
    let mut merges: Vec<(f64, u32, u32, &str, &str)> = Vec::new();
    for (piece, id) in tokens.iter().filter(|(_, id)| normal(*id)) {
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if let (Some(a), Some(b)) = (pieces.get(left), pieces.get(right)) {
                merges.push((scores[*id as usize], *a, *b, left, right));
            }
        }
    }
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let merges: Merges = merges
        .into_iter()
        .map(|(.., left, right)| (left.into(), right.into()))
        .collect();
    let vocabulary: Vocab = tokens.iter().map(|(token, id)| ((*token).to_string(), *id)).collect();
    let unknown = gguf.count("tokenizer.ggml.unknown_token_id").ok();
    let mut bpe = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .byte_fallback(true)
        .fuse_unk(true);
    if let Some((token, _)) = unknown.and_then(|id| tokens.get(id)) {
        bpe = bpe.unk_token((*token).to_string());
    }
    let mut out = Tokenizer::new(bpe.build().map_err(broken)?);
    let replace = |from: &str, to: &str| Replace::new(from, to).map_err(broken);
    let mut before = Vec::new();
    let mut after: Vec<DecoderWrapper> = vec![
        replace(BLANK, " ")?.into(),
        ByteFallback::default().into(),
        Fuse::default().into(),
    ];
    // Where nothing is said of it, SentencePiece's own way.
    if gguf.flag("tokenizer.ggml.add_space_prefix") != Some(false) {
        before.push(Prepend::new(BLANK.into()).into());
        after.push(Strip::new(' ', 1, 0).into());
    }
    before.push(replace(" ", BLANK)?.into());
    out.with_normalizer(Some(Normalizers::new(before))).map_err(broken)?;
    out.with_decoder(Some(Decoders::new(after)));
    Ok(out)
}
