//! What `dpsynth plan` says before any data is touched: the plan of a run, and what it will take here.

use burn::tensor::Device;
use serde::Serialize;

use super::checks;
use super::cost::{Basis, Cost, Reckoning};
use super::rates::Rates;
use crate::Result;
use crate::assets::{self, Locations};
use crate::config::RunConfig;
use crate::models::{ModelFiles, device};
use crate::privacy::Guarantee;
use crate::privacy::planner::{Offer, Proposal};
use crate::records::{LabelSpace, Vocabulary};
use crate::run::{plan_request, privacy_plan};

/// What `dpsynth plan` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    pub privacy: Guarantee,
    pub device: &'static str,
    /// The rest needs the model's file on this machine.
    pub cost: Option<Cost>,
    /// What a person should know though it stops nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What the cost was found from.
    #[serde(skip)]
    pub basis: Option<Basis>,
}

/// The plan of `config` and what it will take here, at the speed that `rates` finds once it is needed; `longest_text` is that of
/// [`Basis`].
///
/// # Errors
/// As [`privacy_plan`]; settings that cannot be run; a model that is broken; what `rates` says.
pub fn estimate(
    config: &RunConfig,
    locations: &Locations,
    longest_text: usize,
    rates: impl FnOnce(&Device) -> Result<Rates>,
) -> Result<Estimate> {
    let plan = privacy_plan(config)?;
    let warnings = checks::configuration(config)?;
    let labels = LabelSpace::from_config(&config.dataset.labels)?;
    let device = device::choose(config.device)?;
    let basis = match assets::model_on_disk(&config.model, locations) {
        Some(path) => {
            let files = ModelFiles::open(&path)?;
            let shape = files.shape()?;
            checks::prompts(config, &labels, &shape, &Vocabulary::of(&files)?)?;
            let rates = rates(&device)?;
            Some(Basis {
                shape,
                labels: labels.len(),
                device: device.clone(),
                rates,
                longest_text,
            })
        }
        None => None,
    };
    Ok(Estimate {
        privacy: plan.statement(plan.steps()),
        device: device::name(&device),
        cost: basis
            .as_ref()
            .map(|basis| Reckoning { config, basis }.cost(plan.steps())),
        warnings,
        basis,
    })
}

/// What the plan of `config` itself comes to, and, where they are enough to plan with, how its draws were spent best.
///
/// # Errors
/// As [`privacy_plan`].
pub fn respent(config: &RunConfig, trained_parameters: usize) -> Result<(Offer, Option<Proposal>)> {
    let request = plan_request(config);
    let own = Offer::of(&request, trained_parameters)?;
    Ok((own, Proposal::new(&request, trained_parameters, own.draws()).ok()))
}
