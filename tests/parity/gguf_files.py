"""Makes the GGUF fixtures of tests/it/parity.rs: `python gguf_files.py` beside this file, after families.py.

`llama3.gguf`, `qwen2.gguf`, `qwen3.gguf`: the models in the folders of those names as llama.cpp's converter lays them out, in
float32 (queries and keys of Llama permuted for interleaved rotation, its scaled positions as `rope_freqs.weight`).
`gemma3.gguf`: a random Gemma 3 of six layers, whose last alone looks at everything, gains whole; its logits by transformers in
`gguf.json`.
`pieces.gguf`: a tokenizer alone, of SentencePiece's BPE trained on very little; tokens of texts by SentencePiece in `gguf.json`.
`blocks.safetensors`: random blocks of each of ggml's formats (`Q4_K` …: bytes), and their numbers by the gguf package
(`Q4_K.numbers` …: float32).
Needs torch, transformers, gguf, sentencepiece, numpy and safetensors; written with torch 2.15, transformers 5.24, gguf 0.19,
sentencepiece 0.2.
"""

import io
import json
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
import torch
from gguf import GGMLQuantizationType as Q
from safetensors.numpy import save_file
from sentencepiece import sentencepiece_model_pb2 as pb
from transformers import AutoModelForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig

from families import CONTEXT, END, LLAMA3, SIZES, VOCAB, ids, logits, randomise, rope, significant

HERE = Path(__file__).parent
PARTS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OF_LLAMA = PARTS | {"post_attention_layernorm": "ffn_norm"}
OF_GEMMA = PARTS | {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def named(tensor, parts):
    if tensor in WHOLE:
        return WHOLE[tensor]
    if tensor == "lm_head.weight":
        return "output.weight"
    _, _, layer, part = tensor.split(".", 3)
    part, kind = part.rsplit(".", 1)
    return f"blk.{layer}.{parts[part]}.{kind}"


def interleaved(t, heads):
    """As convert_hf_to_gguf.py permutes: the halves of each head by turns."""
    return t.reshape(heads, 2, t.shape[0] // heads // 2, *t.shape[1:]).swapaxes(1, 2).reshape(t.shape)


def write(path, family, m, config, parts, more):
    w = gguf.GGUFWriter(path, family)
    w.add_context_length(CONTEXT)
    w.add_embedding_length(config.hidden_size)
    w.add_block_count(config.num_hidden_layers)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    w.add_token_list([f"t{i}" for i in range(VOCAB)])
    more(w)
    for name, t in m.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        t = t.numpy().astype(np.float32)
        if family == "llama" and ("q_proj" in name or "k_proj" in name):
            t = interleaved(t, config.num_attention_heads if "q_proj" in name else config.num_key_value_heads)
        if family == "gemma3" and "norm" in name:
            t = t + 1
        w.add_tensor(named(name, parts), np.ascontiguousarray(t))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def of_folder(name, family):
    m = AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float32).eval()

    def more(w):
        head = m.model.layers[0].self_attn.head_dim
        w.add_key_length(head)
        w.add_rope_freq_base(m.config.rope_parameters["rope_theta"])
        if name == "llama3":
            own = 1.0 / (LLAMA3["rope_theta"] ** (torch.arange(0, head, 2).float() / head))
            w.add_tensor("rope_freqs.weight", (own / m.model.rotary_emb.inv_freq).numpy())

    write(HERE / f"{name}.gguf", family, m, m.config, OF_LLAMA, more)


def gemma():
    config = Gemma3TextConfig(
        rope_parameters={"full_attention": rope(1_000_000.0), "sliding_attention": rope(10_000.0)},
        sliding_window=7, query_pre_attn_scalar=6, head_dim=6, hidden_activation="gelu_pytorch_tanh",
        tie_word_embeddings=True, **(SIZES | {"num_hidden_layers": 6}),
    )  # fmt: skip
    assert config.layer_types == ["sliding_attention"] * 5 + ["full_attention"]
    m = randomise(Gemma3ForCausalLM(config), 20, torch.float32)

    def more(w):
        w.add_key_length(6)
        w.add_rope_freq_base(1_000_000.0)
        w.add_sliding_window(7)

    write(HERE / "gemma3.gguf", "gemma3", m, config, OF_GEMMA, more)
    return [{"tokens": text, "logits": significant(logits(m, text))} for text in [ids(1, 30), ids(2, 3)]]


CORPUS = [
    "The film was the best of the year, and the acting was good.",
    "A bad film; the story is a mess, and it shows.  Two spaces.",
    "It's 2026, and it's 2026 again: naïve café, “quotes”.",
]
TEXTS = [
    "the film was good",
    " a blank before, and two  within",
    "new\n\nlines\tand 2026 digits  ",
    "naïve café — “quotes” 日本語 👩‍👩‍👧",
    "<eos> and <end_of_turn> are plain text here",
    "",
]


def pieces():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 3), model_writer=model, model_type="bpe", vocab_size=380, byte_fallback=True,
        add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity", pad_id=0, eos_id=1,
        bos_id=2, unk_id=3, user_defined_symbols=["\n\n", "▁▁"], hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    proto = pb.ModelProto.FromString(model.getvalue())
    kinds = {1: 1, 2: 2, 3: 3, 4: 4, 6: 6}
    w = gguf.GGUFWriter(HERE / "pieces.gguf", "gemma3")
    blank = lambda p: p.piece.replace("▁", " ") if p.type == 4 else p.piece
    w.add_tokenizer_model("llama")
    w.add_token_list([blank(p) for p in proto.pieces])
    w.add_token_scores([p.score for p in proto.pieces])
    # llama.cpp's converter takes the unknown token for a control token.
    w.add_token_types([3 if p.type == 2 else kinds[p.type] for p in proto.pieces])
    w.add_pad_token_id(0)
    w.add_eos_token_id(1)
    w.add_bos_token_id(2)
    w.add_unk_token_id(3)
    w.add_add_bos_token(True)
    w.add_add_space_prefix(False)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    out = []
    for text in TEXTS:
        tokens = processor.encode(text)
        assert processor.decode(tokens) == text
        out.append({"text": text, "tokens": tokens})
    return out


def blocks():
    rng, out = np.random.default_rng(0), {}
    # Where the halves lie that scale a block.
    scales = {
        Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208],
    }  # fmt: skip
    for kind, at in scales.items():
        _, size = gguf.GGML_QUANT_SIZES[kind]
        raw = rng.integers(0, 256, (5, size), dtype=np.uint8)
        for start in at:
            raw[:, start : start + 2] = rng.normal(0, 0.1, 5).astype(np.float16)[:, None].view(np.uint8)
        out[kind.name] = raw
        out[f"{kind.name}.numbers"] = gguf.quants.dequantize(raw, kind).astype(np.float32)
    save_file(out, HERE / "blocks.safetensors")


def main():
    torch.set_num_threads(1)
    of_folder("llama3", "llama")
    of_folder("qwen2", "qwen2")
    of_folder("qwen3", "qwen3")
    expected = {"gemma3": gemma(), "pieces": pieces()}
    blocks()
    (HERE / "gguf.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
