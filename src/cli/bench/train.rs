//! `dpsynth bench train`.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use dpsynth::bench::clock::go_on;
use dpsynth::bench::memory::Peak;
use dpsynth::bench::train::{self, Arm, Measurement, Parts, Setting};
use dpsynth::config::{Method, RunConfig};
use dpsynth::{Error, Result};

use super::super::Ui;
use super::super::run::interrupts;
use super::which::{DtypeName, Which};

/// Times private training steps beside the same steps without privacy, in turn in one process
///
/// A step is a logical batch of made-up records, all of one length. Its charge, noise and optimizer are a run's, its
/// ledger is thrown away. Then each way to train gets a process of its own, for its peak of memory.
#[derive(Args)]
pub struct Train {
    #[command(flatten)]
    which: Which,
    /// Records of a logical batch
    #[arg(long, value_name = "N", default_value_t = 32)]
    records: usize,
    /// Tokens of a record behind its prompt [default: the configuration's `prepare.max_tokens`, else 64]
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Steps that count, after one that does not
    #[arg(long, value_name = "N", default_value_t = 3)]
    steps: usize,
    /// Records that go through the model at once [default: the configuration's, else 8]
    #[arg(long, value_name = "N")]
    micro_batch_size: Option<usize>,
    /// LoRA rank [default: the configuration's, else 16]
    #[arg(long, value_name = "N", conflicts_with = "full")]
    rank: Option<usize>,
    /// Trains all weights
    #[arg(long)]
    full: bool,
    /// Keeps the weights that are not trained in a few bits each: LoRA beside NF4, or beside what a GGUF packs
    #[arg(long, conflicts_with = "full")]
    qlora: bool,
    /// Keeps of each block its input alone and computes the rest anew: less memory, more time
    #[arg(long)]
    activation_checkpointing: bool,
    /// Element type of the products in training [default: the configuration's, else f32]
    #[arg(long, value_enum)]
    dtype: Option<DtypeName>,
    /// Measures nothing but this way's peak of memory: what this command starts itself with
    #[arg(long, value_name = "WAY", hide = true)]
    peak_of: Option<Way>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Way {
    Private,
    NonPrivate,
}

impl Train {
    /// Measures and prints.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let stop = interrupts()?;
        let mut config = self.which.config()?;
        let setting = self.setting(config.as_ref());
        if let Some(config) = &mut config {
            config.finetune = setting.finetune.clone();
        }
        let packed = setting.finetune.method == Method::Qlora;
        let subject = self.which.subject(config.as_ref(), packed, ui)?;
        if let Some(way) = self.peak_of {
            let arm = match way {
                Way::Private => Arm::Private,
                Way::NonPrivate => Arm::NonPrivate,
            };
            return ui.print_json(&train::peak(&subject, &setting, arm, stop)?);
        }
        let found = train::measure(&subject, &setting, stop, ui)?;
        // Both at once would not fit where one does.
        drop(subject);
        let found = found.with_peaks(peak_of(Way::Private, stop)?, peak_of(Way::NonPrivate, stop)?);
        match self.which.json {
            true => ui.print_json(&found),
            false => ui.print(&table(&found)),
        }
    }

    fn setting(&self, config: Option<&RunConfig>) -> Setting {
        let mut finetune = config.map(|c| c.finetune.clone()).unwrap_or_default();
        finetune.micro_batch_size = self.micro_batch_size.unwrap_or(finetune.micro_batch_size);
        finetune.rank = self.rank.unwrap_or(finetune.rank);
        finetune.precision = self.dtype.map_or(finetune.precision, DtypeName::precision);
        finetune.activation_checkpointing |= self.activation_checkpointing;
        match (self.full, self.qlora) {
            (true, _) => finetune.method = Method::Full,
            (_, true) => finetune.method = Method::Qlora,
            _ => {}
        }
        Setting {
            records: self.records,
            tokens: self
                .tokens
                .unwrap_or_else(|| config.map_or(64, |c| c.prepare.max_tokens)),
            steps: self.steps,
            finetune,
        }
    }
}

/// The same command in a process of its own, for one peak.
fn peak_of(way: Way, stop: &AtomicBool) -> Result<Peak> {
    let failed = |what: String| {
        Error::other(format!("the process that measures memory {what}"))
            .hint("is there room for one more? fewer `--micro-batch-size` take less")
    };
    let program = std::env::current_exe().map_err(|e| failed(format!("cannot be found: {e}")))?;
    let way = way.to_possible_value().expect("no way is left out");
    let mut child = Command::new(program)
        .args(std::env::args_os().skip(1))
        .args(["--peak-of", way.get_name()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed(format!("cannot be started: {e}")))?;
    while child.try_wait().map_err(|e| failed(format!("is lost: {e}")))?.is_none() {
        if stop.load(Ordering::Relaxed) {
            // Already ended, or ended now.
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child
        .wait_with_output()
        .map_err(|e| failed(format!("cannot be heard: {e}")))?;
    go_on(stop)?;
    serde_json::from_slice(&output.stdout).map_err(|_| failed(format!("ended with {}", output.status)))
}

/// A name, and where its seconds stand.
type Part = (&'static str, fn(&Parts) -> f64);

fn table(m: &Measurement) -> String {
    let mut table = super::super::table::table(["training", "private", "non-private", "ratio"], 1..);
    let mut row = |what: &str, cells: [String; 3]| {
        let [private, non_private, ratio] = cells;
        table.add_row([what.to_string(), private, non_private, ratio]);
    };
    let ratio = |r: f64| format!("{r:.2}");
    row(
        "tokens a second",
        [
            format!("{:.0}", m.tokens_per_second),
            format!("{:.0}", m.non_private_tokens_per_second),
            ratio(m.tokens_per_second / m.non_private_tokens_per_second),
        ],
    );
    row(
        "step, s",
        [
            format!("{:.3}", m.seconds),
            format!("{:.3}", m.non_private_seconds),
            ratio(m.private_over_non_private_time),
        ],
    );
    let parts: [Part; 6] = [
        ("  forward", |p| p.forward_s),
        ("  backward", |p| p.backward_s),
        ("  norms and sums", |p| p.norms_s),
        ("  noise", |p| p.noise_s),
        ("  optimizer", |p| p.optimizer_s),
        ("  other", |p| p.other_s),
    ];
    for (what, of) in parts {
        let cells = [&m.parts, &m.non_private].map(|p| format!("{:.3}", of(p)));
        let [private, non_private] = cells;
        row(what, [private, non_private, String::new()]);
    }
    if let (Some(private), Some(non_private), Some(r)) =
        (m.private_peak, m.non_private_peak, m.private_over_non_private_peak)
    {
        let gigabytes = |p: Peak| format!("{:.2}", p.device_bytes.unwrap_or(p.rss_bytes) as f64 / 1e9);
        row(
            "peak memory, GB",
            [gigabytes(private), gigabytes(non_private), ratio(r)],
        );
    }
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    row(
        "of the products' ceiling",
        [
            percent(m.model_flop_utilisation),
            percent(m.non_private_model_flop_utilisation),
            String::new(),
        ],
    );
    let method = match m.method {
        Method::Lora => "LoRA",
        Method::Qlora => "QLoRA",
        Method::LoraFa => "LoRA-FA",
        Method::Bitfit => "BitFit",
        Method::Ia3 => "(IA)³",
        Method::SoftPrompt => "a soft prompt",
        Method::Full => "full fine-tuning",
    };
    format!(
        "{} on {}, {} workers: {method}, {:.2} M values; {} records of {:.0} tokens, {} at once; products at {:.0} GFLOP/s at best\n{table}",
        m.model,
        m.device,
        m.workers,
        m.trained_parameters as f64 / 1e6,
        m.records,
        m.tokens_per_record,
        m.micro_batch_size,
        m.matmul_ceiling_flops_per_second / 1e9,
    )
}
