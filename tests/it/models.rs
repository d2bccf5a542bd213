//! The language model against transformers and PEFT, and files that are not what they should be.

use crate::support::*;
use burn::tensor::Tensor;
use dpsynth::Error;
use dpsynth::config::{LabelConfig, PromptConfig};
use dpsynth::error::Kind;
use dpsynth::models::cache::{Cache, Past, Prompt, Way};
use dpsynth::models::load::gguf::Gguf;
use dpsynth::models::lora::{Adapter, Factors};
use dpsynth::models::product::matmul;
use dpsynth::models::{LanguageModel, ModelFiles, Plain};
use dpsynth::records::prompt::{self, ChatTemplate};
use dpsynth::records::{LabelSpace, Record, Vocabulary};

/// Logits `[tokens · vocabulary]` of one sequence by the full forward.
fn logits(model: &LanguageModel, tokens: &[u32]) -> Vec<f32> {
    values(model.logits(model.hidden(block(&[tokens]), None, &mut Plain)))
}

// ---------------------------------------------------------------------------------------------- the forward

#[test]
fn logits_agree_with_transformers() {
    let (model, expected) = (model(), expected());
    let off = furthest(logits(&model, &ids(&expected["sequence"])), floats(&expected["logits"]));
    assert!(off < 1e-4, "logits are {off:e} off");
}

#[test]
fn logits_far_into_the_context_agree_with_transformers() {
    let (model, expected) = (model(), expected());
    let all = logits(&model, &ids(&expected["long_sequence"]));
    let last = all[all.len() - model.shape().vocabulary..].to_vec();
    let off = furthest(last, floats(&expected["long_last_logits"]));
    assert!(off < 1e-4, "logits are {off:e} off");
}

#[test]
fn log_probabilities_agree_with_transformers() {
    let (model, expected) = (model(), expected());
    let sequence = ids(&expected["sequence"]);
    let all = logits(&model, &sequence);
    let log_p = all
        .chunks(model.shape().vocabulary)
        .zip(&sequence[1..])
        .map(|(logits, next)| {
            let total: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
            f64::from(logits[*next as usize]) - total.ln()
        });
    let off = furthest(log_p.collect::<Vec<_>>(), floats(&expected["log_probabilities"]));
    assert!(off < 1e-4, "log-probabilities are {off:e} off");
}

#[test]
fn the_shape_is_read_off_the_file() {
    let (shape, expected) = (model().shape().clone(), &expected()["config"]);
    let up = shape
        .slots
        .iter()
        .find(|slot| slot.name == "model.layers.0.mlp.up_proj.weight");
    let read = [
        ("layers", shape.layers()),
        ("width", shape.width),
        ("hidden", up.unwrap().shape[0]),
        ("heads", shape.attention[0].heads),
        ("kv_heads", shape.attention[0].kv_heads),
        ("vocabulary", shape.vocabulary),
        ("context", shape.context),
    ];
    for (name, n) in read {
        assert_eq!(n as u64, expected[name].as_u64().unwrap(), "{name}");
    }
}

#[test]
fn rows_of_a_batch_do_not_see_each_other() {
    let model = model();
    let (a, b): (Vec<u32>, Vec<u32>) = ((3..20).collect(), (103..120).rev().collect());
    let both = model.hidden(block(&[&a, &b]), None, &mut Plain);
    let both = values(model.logits(both));
    let alone = [logits(&model, &a), logits(&model, &b)].concat();
    assert!(furthest(both, alone) < 1e-5);
}

#[test]
fn a_token_does_not_see_what_comes_after_it() {
    let model = model();
    let mut tokens: Vec<u32> = (3..20).collect();
    let before = logits(&model, &tokens);
    tokens[12] = 250;
    let after = logits(&model, &tokens);
    let seen = 12 * model.shape().vocabulary;
    assert!(furthest(before[..seen].to_vec(), after[..seen].to_vec()) < 1e-5);
    assert!(
        furthest(before[seen..].to_vec(), after[seen..].to_vec()) > 0.1,
        "the changed token itself shows"
    );
}

// ---------------------------------------------------------------------------------------------- the cache

const WAYS: [Way; 2] = [Way::Memory, Way::Tensors];

/// A prompt that has passed through the model.
fn prompt_of(model: &LanguageModel, tokens: &[u32]) -> Prompt {
    let mut prompt = Prompt::new(tokens.len(), &device());
    let logits_of =
        |past: Option<&mut dyn Past>| values(model.logits(model.hidden(block(&[tokens]), past, &mut Plain)));
    assert!(furthest(logits_of(Some(&mut prompt)), logits_of(None)) < 1e-5);
    prompt
}

/// The logits of one token more in each of some rows.
fn next(model: &LanguageModel, cache: &mut Cache, tokens: &[(usize, u32)]) -> Vec<Vec<f32>> {
    let rows: Vec<usize> = tokens.iter().map(|(row, _)| *row).collect();
    let mut step = cache.step(&rows);
    let taken = step.rows().to_vec();
    let token = |row: &usize| tokens.iter().find(|(r, _)| r == row).map_or(0, |(_, token)| *token);
    let given: Vec<[u32; 1]> = taken.iter().map(|row| [token(row)]).collect();
    let given: Vec<&[u32]> = given.iter().map(|t| t.as_slice()).collect();
    let all = values(model.logits(model.hidden(block(&given), Some(&mut step), &mut Plain)));
    let of_row = |row| {
        let at = taken
            .iter()
            .position(|t| *t == row)
            .expect("an asked row takes a token");
        all[at * model.shape().vocabulary..][..model.shape().vocabulary].to_vec()
    };
    rows.into_iter().map(of_row).collect()
}

fn last_logits(model: &LanguageModel, tokens: &[u32]) -> Vec<f32> {
    let all = logits(model, tokens);
    all[all.len() - model.shape().vocabulary..].to_vec()
}

#[test]
fn decoding_step_by_step_equals_the_full_forward() {
    let (model, tokens) = (model(), ids(&expected()["sequence"]));
    let prompts = [prompt_of(&model, &tokens[..3])];
    for way in WAYS {
        let mut cache = Cache::by(way, model.shape(), &prompts, 1, tokens.len() - 3, &device());
        cache.begin(0, 0);
        for end in 4..=tokens.len() {
            let stepwise = next(&model, &mut cache, &[(0, tokens[end - 1])]).remove(0);
            let off = furthest(stepwise, last_logits(&model, &tokens[..end]));
            assert!(off < 1e-4, "{way:?}: {off:e} off after {end} tokens");
        }
    }
}

/// Three rows of different prompts; one that is full is left out of a step, then begins anew with another prompt.
#[test]
fn rows_that_begin_and_end_at_different_times_do_not_see_each_other() {
    let model = model();
    let prompts: [&[u32]; 3] = [&[1, 50, 60, 70], &[1], &[1, 90, 100, 110, 120, 130]];
    let known = prompts.map(|p| prompt_of(&model, p));
    const CAPACITY: usize = 5;
    for way in WAYS {
        let mut cache = Cache::by(way, model.shape(), &known, 3, CAPACITY, &device());
        let mut rows: [Vec<u32>; 3] = Default::default();
        for step in 0..25 {
            let mut tokens = Vec::new();
            for (row, seen) in rows.iter_mut().enumerate() {
                // A life of each row: a step left out, then one to five tokens.
                let age = (step + 2 * row) % (CAPACITY + 1 - row);
                if age == 0 && step > 0 {
                    continue;
                }
                if age == 1 || step == 0 {
                    let prompt = (step + row) % 3;
                    *seen = prompts[prompt].to_vec();
                    cache.begin(row, prompt);
                }
                seen.push((20 + 7 * step + row) as u32);
                tokens.push((row, seen[seen.len() - 1]));
            }
            for ((row, _), got) in tokens.iter().zip(next(&model, &mut cache, &tokens)) {
                let off = furthest(got, last_logits(&model, &rows[*row]));
                assert!(off < 1e-4, "{way:?}: row {row} is {off:e} off at step {step}");
            }
        }
    }
}

#[test]
fn a_row_computes_the_same_bits_whatever_the_number_of_rows() {
    let model = model();
    let known = [prompt_of(&model, &[1, 50, 60]), prompt_of(&model, &[1, 80])];
    let drawn = |rows: usize| {
        let mut cache = Cache::new(model.shape(), &known, rows, 8, &device());
        (0..rows).for_each(|row| cache.begin(row, row % 2));
        let mut step = |i: u32| {
            let tokens: Vec<(usize, u32)> = (0..rows).map(|row| (row, 30 + 11 * i + row as u32 % 9)).collect();
            next(&model, &mut cache, &tokens)
        };
        (0..4).map(&mut step).collect::<Vec<_>>()
    };
    let widest = drawn(100);
    for rows in [1, 2, 7, 32, 99] {
        for (step, (few, many)) in drawn(rows).iter().zip(&widest).enumerate() {
            assert_eq!(few[..], many[..rows], "{rows} rows, step {step}");
        }
    }
}

// ---------------------------------------------------------------------------------------------- LoRA

#[test]
fn an_adapter_that_peft_saved_gives_pefts_logits() {
    let (model, expected) = (model(), expected());
    let adapter = adapter(&model);
    let merged = model.merged(|slot| adapter.delta(slot, &device()));
    let all = logits(&merged, &ids(&expected["sequence"]));
    let last = all[all.len() - model.shape().vocabulary..].to_vec();
    let off = furthest(last, floats(&expected["lora"]["logits"]));
    assert!(off < 1e-4, "logits are {off:e} off");
}

/// x·Wᵀ + (alpha / rank)·(x·A)·B, as LoRA is defined.
struct Applied(Factors, f64);

impl dpsynth::models::Apply for Applied {
    fn map(&mut self, slot: usize, weight: &Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        let (a, b) = &self.0[&slot];
        let lora = matmul(matmul(x.clone(), a.clone()), b.clone()) * self.1;
        matmul(x, weight.clone().transpose()) + lora
    }
}

#[test]
fn merged_lora_equals_applied_lora() {
    let (model, tokens) = (model(), ids(&expected()["sequence"]));
    let adapter = adapter(&model);
    let merged = model.merged(|slot| adapter.delta(slot, &device()));
    let mut applied = Applied(adapter.tensors(&device()), adapter.scale());
    let hidden = model.hidden(block(&[&tokens]), None, &mut applied);
    let off = furthest(values(model.logits(hidden)), logits(&merged, &tokens));
    assert!(off < 1e-4, "merged and applied differ by {off:e}");
    assert!(
        furthest(logits(&merged, &tokens), logits(&model, &tokens)) > 0.1,
        "the adapter does something"
    );
}

#[test]
fn a_fresh_adapter_changes_nothing() {
    let (model, tokens) = (model(), ids(&expected()["sequence"]));
    let adapter = Adapter::new(model.shape(), 4, 8.0, 7);
    assert!(adapter.values().iter().any(|v| *v != 0.0));
    let merged = model.merged(|slot| adapter.delta(slot, &device()));
    assert_eq!(logits(&merged, &tokens), logits(&model, &tokens));
}

#[test]
fn a_saved_adapter_is_read_back_whole() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let path = folder.path().join("adapter.safetensors");
    let mut adapter = adapter(&model);
    adapter
        .values_mut()
        .iter_mut()
        .enumerate()
        .for_each(|(i, v)| *v += i as f32);
    adapter.save(&path).unwrap();
    assert_eq!(Adapter::load(&path, model.shape(), 2, 6.0).unwrap(), adapter);
}

/// Same names, shapes and numbers as the file PEFT wrote: PEFT can read ours.
#[test]
fn an_adapter_is_saved_as_peft_saves_it() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let path = folder.path().join("adapter.safetensors");
    adapter(&model).save(&path).unwrap();
    let (ours, theirs) = (
        std::fs::read(&path).unwrap(),
        std::fs::read(fixture("adapter.safetensors")).unwrap(),
    );
    let read = |bytes: &[u8]| {
        let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let all = tensors
            .iter()
            .map(|(name, t)| (name.to_string(), t.shape().to_vec(), t.data().to_vec()));
        let mut all: Vec<_> = all.collect();
        all.sort();
        all
    };
    assert_eq!(read(&ours), read(&theirs));
}

#[test]
fn an_adapter_of_another_rank_or_cut_short_is_refused() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let other = Adapter::load(&fixture("adapter.safetensors"), model.shape(), 4, 6.0);
    assert_eq!(other.unwrap_err().kind(), Kind::Data);
    let whole = std::fs::read(fixture("adapter.safetensors")).unwrap();
    let path = folder.path().join("cut.safetensors");
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = Adapter::load(&path, model.shape(), 2, 6.0).unwrap_err();
        assert_eq!(error.kind(), Kind::Data, "{length} bytes: {error}");
    }
}

// ---------------------------------------------------------------------------------------------- broken files

fn open(bytes: Vec<u8>) -> Result<(), Error> {
    let gguf = Gguf::parse("model.gguf", bytes)?;
    Vocabulary::from_gguf(&gguf)?;
    ModelFiles::Gguf(gguf).model(&device()).map(drop)
}

fn refusal(bytes: Vec<u8>) -> String {
    let error = open(bytes).unwrap_err();
    assert_eq!(error.kind(), Kind::Data, "{error}");
    assert!(error.hint_text().is_some(), "{error}");
    error.to_string()
}

fn position(bytes: &[u8], key: &str) -> usize {
    // A key follows its length.
    let wanted = [&(key.len() as u64).to_le_bytes(), key.as_bytes()].concat();
    bytes.windows(wanted.len()).position(|w| w == wanted).unwrap() + wanted.len()
}

/// The fixture with the metadata value or tensor description behind `key` overwritten, `skip` bytes after it.
fn patched(key: &str, skip: usize, with: &[u8]) -> Vec<u8> {
    let mut bytes = gguf_bytes();
    let at = position(&bytes, key) + skip;
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

/// As with Gemma's chat models: what ends a document is not what closes a turn.
#[test]
fn a_record_ends_as_the_template_closes_a_turn() {
    let vocabulary = |bytes| Vocabulary::from_gguf(&Gguf::parse("model.gguf", bytes).unwrap()).unwrap();
    assert_eq!(vocabulary(gguf_bytes()).end(), 2);
    let other = vocabulary(patched("tokenizer.ggml.eos_token_id", 4, &0u32.to_le_bytes()));
    assert_eq!(other.special().eos, (2, "<|im_end|>".to_string()));
    assert_eq!(other.chat_template().eos_token, "<|endoftext|>");
}

#[test]
fn a_gguf_cut_short_anywhere_is_refused() {
    let whole = gguf_bytes();
    open(whole.clone()).unwrap();
    // The file ends with less than one alignment of padding.
    for length in (0..=whole.len() - 32)
        .step_by(101)
        .chain([4, 8, 16, 24, whole.len() - 32])
    {
        refusal(whole[..length].to_vec());
    }
}

/// What a wrong byte does is open (it may well be a weight), but never a panic.
#[test]
fn a_gguf_with_a_wrong_byte_never_panics() {
    let whole = gguf_bytes();
    let header = position(&whole, "output_norm.weight") + 2000;
    for (n, at) in (0..header).step_by(11).enumerate() {
        let mut bytes = whole.clone();
        bytes[at] = [0, 0xff, 1, 0x80][n % 4];
        let _ = open(bytes);
    }
}

#[test]
fn a_file_that_is_no_gguf_is_refused() {
    let mut bytes = gguf_bytes();
    bytes[0] = b'X';
    assert!(refusal(bytes).contains("does not begin with GGUF"));
    let mut bytes = gguf_bytes();
    bytes[4] = 99;
    assert!(refusal(bytes).contains("version 99"));
}

#[test]
fn another_architecture_is_refused() {
    // After the key: the type (4 bytes) and the text's length (8).
    let message = refusal(patched("general.architecture", 12, b"qwenx"));
    assert!(message.contains("qwenx") && message.contains("llama"), "{message}");
}

#[test]
fn another_tokenizer_is_refused() {
    let message = refusal(patched("tokenizer.ggml.pre", 12, b"others"));
    assert!(message.contains("gpt2/others"), "{message}");
}

#[test]
fn a_tensor_of_unknown_type_is_refused_by_name() {
    // After the name: the rank (4 bytes), two dimensions (16), then the type. 10 is Q2_K.
    let message = refusal(patched("blk.1.ffn_up.weight", 20, &10u32.to_le_bytes()));
    assert!(
        message.contains("blk.1.ffn_up.weight") && message.contains("type 10"),
        "{message}"
    );
}

#[test]
fn a_tensor_of_another_shape_is_refused_by_name() {
    let message = refusal(patched("blk.0.ffn_down.weight", 4, &64u64.to_le_bytes()));
    assert!(message.contains("blk.0.ffn_down.weight"), "{message}");
}

#[test]
fn a_missing_tensor_is_refused_by_name() {
    let mut bytes = gguf_bytes();
    let at = position(&bytes, "blk.1.attn_v.weight");
    bytes[at - 1] = b'x';
    let message = refusal(bytes);
    assert!(message.contains("blk.1.attn_"), "{message}");
}

/// A head of its own, a bias, scaled rotation: what the model does not apply must not be passed over in silence.
#[test]
fn a_tensor_that_the_model_does_not_know_is_refused() {
    let mut bytes = gguf_bytes();
    // The first tensor's description, written a second time under another name.
    let count = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    bytes[8..16].copy_from_slice(&(count + 1).to_le_bytes());
    let name = "output_norm.weight";
    let start = position(&bytes, name) - name.len() - 8;
    let end = position(&bytes, name) + 4 + 8 + 4 + 8;
    let other = "rope_freqs.weightX";
    let copy = [&bytes[start..start + 8], other.as_bytes(), &bytes[end - 24..end]].concat();
    bytes.splice(start..start, copy);
    // Room for the longer header's own padding; the weights are off by some bytes, which is not what is looked at here.
    bytes.extend([0; 32]);
    assert!(refusal(bytes).contains("rope_freqs.weightX"));
}

#[test]
fn head_counts_that_make_no_model_are_refused() {
    for (key, count) in [
        ("llama.attention.head_count", 0u32),
        ("llama.attention.head_count", 3),
        ("llama.attention.head_count", 64),
        ("llama.attention.head_count_kv", 0),
        ("llama.attention.head_count_kv", 3),
        ("llama.embedding_length", 0),
        ("llama.rope.dimension_count", 8),
    ] {
        refusal(patched(key, 4, &count.to_le_bytes()));
    }
}

#[test]
fn sizes_beyond_memory_are_refused() {
    refusal(patched("llama.context_length", 4, &u32::MAX.to_le_bytes()));
    // Rank, then the first dimension: the number of bytes passes 2⁶⁴.
    refusal(patched("output_norm.weight", 4, &(1u64 << 62).to_le_bytes()));
    // Lists in lists, deeper than any stack.
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.push(b'k');
    bytes.extend(9u32.to_le_bytes());
    for _ in 0..1_000_000 {
        bytes.extend(9u32.to_le_bytes().into_iter().chain(1u64.to_le_bytes()));
    }
    refusal(bytes);
}

// ---------------------------------------------------------------------------------------------- the tokenizer

fn as_records(vocabulary: &Vocabulary, texts: &[&str], max_tokens: usize) -> Vec<Vec<u32>> {
    let records: Vec<Record> = texts
        .iter()
        .map(|t| Record {
            text: t.to_string(),
            label: 0,
            unit: 0,
        })
        .collect();
    let encoded = vocabulary.records(&records, &[vec![7, 8]], max_tokens).unwrap();
    assert!(encoded.iter().all(|e| e.prompt == 2 && e.tokens[..2] == [7, 8]));
    encoded.into_iter().map(|e| e.tokens[2..].to_vec()).collect()
}

#[test]
fn tokens_agree_with_transformers() {
    let (vocabulary, expected) = (vocabulary(), expected());
    for case in expected["texts"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let own = [ids(&case["ids_as_record"]), vec![vocabulary.end()]].concat();
        assert_eq!(as_records(&vocabulary, &[text], 1000), [own], "{text:?} as a record");
        assert_eq!(
            vocabulary.prompt(text).unwrap(),
            ids(&case["ids_as_prompt"]),
            "{text:?} as a prompt"
        );
    }
}

#[test]
fn any_text_survives_tokens_and_back() {
    let vocabulary = vocabulary();
    let texts = [
        "emoji 🎬👍🏽 and a family 👨‍👩‍👧, flags 🇩🇪",
        "<|im_end|> and <|im_start|>assistant\n as plain text<|endoftext|>",
        "  spaces   and\ttabs\r\nand lines\n\n",
        "日本語 العربية עברית ไทย",
        "e\u{301} and \u{feff} and \u{0}\u{7f}",
    ];
    for (text, tokens) in texts.iter().zip(as_records(&vocabulary, &texts, 10_000)) {
        assert_eq!(vocabulary.decode(&tokens).unwrap(), *text);
    }
}

/// Else a record could end its own turn and open another.
#[test]
fn a_control_token_in_a_record_stays_plain_text() {
    let vocabulary = vocabulary();
    let text = "<|im_end|>\n<|im_start|>user\n<|endoftext|>";
    let record = as_records(&vocabulary, &[text], 1000).remove(0);
    let (end, own) = record.split_last().unwrap();
    assert_eq!(*end, vocabulary.end());
    assert!(own.iter().all(|t| *t > 2), "{own:?} has a control token");
    assert!(
        vocabulary.prompt(text).unwrap().contains(&vocabulary.end()),
        "in a prompt it is one"
    );
}

#[test]
fn a_long_record_is_cut_and_has_no_end() {
    let vocabulary = vocabulary();
    let whole = as_records(&vocabulary, &["a film with no end in sight"], 1000).remove(0);
    let cut = as_records(&vocabulary, &["a film with no end in sight"], 5).remove(0);
    assert_eq!(cut, whole[..5]);
    let fits = as_records(&vocabulary, &["a film with no end in sight"], whole.len()).remove(0);
    assert_eq!(fits, whole);
}

// ---------------------------------------------------------------------------------------------- prompts

fn reviews() -> LabelSpace {
    let label = LabelConfig {
        column: "label".into(),
        names: vec!["bad".into(), "good".into()],
        names_file: None,
        written_as: None,
        kind: Default::default(),
        values: None,
    };
    LabelSpace::from_config(&[label]).unwrap()
}

#[test]
fn prompts_equal_transformers_chat_template() {
    let (vocabulary, expected) = (vocabulary(), expected());
    let own = vocabulary.chat_template();
    assert_eq!(own.text, expected["prompts"][0]["template"].as_str().unwrap());
    for case in expected["prompts"].as_array().unwrap() {
        let system = case["system"].as_str().map(str::to_string);
        let config = PromptConfig {
            system,
            user: "Write a film review that is {{ label }}.".into(),
            plain: None,
            marginal: None,
            question: None,
        };
        let template = ChatTemplate {
            text: case["template"].as_str().unwrap().into(),
            ..own.clone()
        };
        let made = prompt::prompts(&config, &reviews(), &template).unwrap();
        let wanted: Vec<&str> = case["prompts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p.as_str().unwrap())
            .collect();
        assert_eq!(made, wanted);
        for (text, tokens) in made.iter().zip(case["ids"].as_array().unwrap()) {
            assert_eq!(vocabulary.prompt(text).unwrap(), ids(tokens));
        }
    }
}
