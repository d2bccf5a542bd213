//! `dpsynth bench train`.

use clap::Args;
use dpsynth::Result;
use dpsynth::bench::train::{Measurement, Setting, measure};

use super::super::run::interrupts;
use super::super::{Ui, show};
use super::which::Which;

/// Times private training steps beside the same steps without privacy, in turn in one process
///
/// A step is a logical batch of made-up records, all of one length. Its noise, its charge and its optimizer are a run's.
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
    /// Records that go through the model at once
    #[arg(long, value_name = "N")]
    micro_batch_size: Option<usize>,
    /// LoRA rank
    #[arg(long, value_name = "N")]
    rank: Option<usize>,
}

impl Train {
    /// Measures and prints.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let stop = interrupts()?;
        let config = self.which.config()?;
        let mut finetune = config.as_ref().map(|c| c.finetune.clone()).unwrap_or_default();
        finetune.micro_batch_size = self.micro_batch_size.unwrap_or(finetune.micro_batch_size);
        finetune.rank = self.rank.unwrap_or(finetune.rank);
        let setting = Setting {
            records: self.records,
            tokens: self
                .tokens
                .unwrap_or_else(|| config.as_ref().map_or(64, |c| c.prepare.max_tokens)),
            steps: self.steps,
            finetune,
        };
        let subject = self.which.subject(config.as_ref(), ui)?;
        let found = measure(&subject, &setting, stop, ui)?;
        match self.which.json {
            true => ui.print_json(&found),
            false => ui.print(&table(&found)),
        }
    }
}

fn table(m: &Measurement) -> String {
    let mut table = show::table(["training", "", ""], 1..);
    let share = |s: f64| format!("{:.1} %", 100.0 * s / m.seconds);
    let mut row = |what: &str, value: String, more: String| {
        table.add_row([what.to_string(), value, more]);
    };
    row("tokens a second", format!("{:.0}", m.tokens_per_second), String::new());
    row("step", format!("{:.3} s", m.seconds), String::new());
    for (part, s) in [
        ("  gradients", m.gradients_s),
        ("  noise", m.noise_s),
        ("  optimizer", m.optimizer_s),
        ("  other", m.other_s),
    ] {
        row(part, format!("{s:.3} s"), share(s));
    }
    row(
        "GFLOP/s",
        format!("{:.1}", m.flops_per_second / 1e9),
        format!(
            "{:.1} % of {:.0} in products",
            100.0 * m.model_flop_utilisation,
            m.matmul_ceiling_flops_per_second / 1e9
        ),
    );
    format!(
        "{} on {} ({}, {} workers): {:.2} M values trained; {} records of {:.0} tokens, {} at once\n{table}",
        m.model,
        m.device,
        m.dtype,
        m.workers,
        m.trained_parameters as f64 / 1e6,
        m.records,
        m.tokens_per_record,
        m.micro_batch_size
    )
}
