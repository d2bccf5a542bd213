//! `dpsynth plan`: what a run will spend and cost.

use clap::Args;
use dpsynth::Result;
use dpsynth::assets::Locations;
use dpsynth::pipeline::estimate::estimate;

use super::Ui;
use super::run::Which;

/// Prints steps, sampling rate, noise, epsilon, memory and time of a run, before any data is touched
#[derive(Args)]
pub struct Plan {
    #[command(flatten)]
    which: Which,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

impl Plan {
    /// Shows the estimate.
    pub fn run(self, ui: &Ui) -> Result<()> {
        let (config, profile) = self.which.load()?;
        let e = estimate(&config, &Locations::from_env())?;
        if self.json {
            return ui.print_json(&e);
        }
        let p = &e.privacy;
        let mut out = vec![
            format!("run               {}-{} on {}", config.name, profile.name(), e.device),
            format!("privacy           {p}"),
            format!("steps             {}", p.steps),
            format!(
                "sampling rate     {:.6}  ({} of {})",
                p.sampling_rate, p.expected_batch_size, config.dataset.public_size
            ),
            format!("noise multiplier  {:.4}", p.noise_multiplier),
        ];
        match e.cost {
            Some(c) => {
                let (million, gigabytes) = (|n: usize| n as f64 / 1e6, |b: f64| b / 1e9);
                out.push(format!(
                    "model             {:.1} M parameters, {:.2} M trained",
                    million(c.parameters),
                    million(c.trained_parameters)
                ));
                out.push(format!(
                    "memory, at most   {:.1} GB training, {:.1} GB sampling",
                    gigabytes(c.training_memory_bytes),
                    gigabytes(c.sampling_memory_bytes)
                ));
                out.push(format!(
                    "time, at most     {} training, {} sampling  (estimated from {:.0} GFLOP/s measured now; evaluation comes on top)",
                    duration(c.finetune_s),
                    duration(c.sample_s),
                    c.matmul_flops_per_second / 1e9
                ));
            }
            None => out.push(format!(
                "memory and time   known once the model is here: dpsynth fetch {}",
                config.model.asset
            )),
        }
        ui.print(&out.join("\n"))
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
