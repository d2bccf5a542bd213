//! Sentences of a bundle that follow from its values: whoever changes one and not the other is found.

use super::values;
use crate::facts::wording;
use crate::release::claim::{COVERS, Claim, RANDOMNESS, VARIANT};

/// Each sentence of the claim that its values would not make.
pub fn differs(said: &Claim) -> Vec<String> {
    let (g, a, d) = (&said.guarantee, &said.algorithm, &said.deployment);
    let [plain, attacks, neighbours, declared] = sentences(said);
    let covers: Vec<&str> = g.covers.iter().map(String::as_str).collect();
    let expected = [
        ("variant", g.variant == VARIANT),
        ("plain", g.plain == plain),
        ("attacks_plain", g.attacks_plain == attacks),
        ("neighbours", g.neighbours == neighbours),
        ("covers", covers == COVERS),
        ("declared_public", g.declared_public == declared),
        ("randomness", a.randomness == RANDOMNESS),
        ("trust_model", d.trust_model == "central"),
        ("trust", d.trust == wording::TRUST),
        ("outside", d.outside == wording::OUTSIDE),
        ("access", d.access == "non-interactive"),
        ("withheld", d.withheld == wording::WITHHELD),
        ("contamination", d.contamination == wording::CONTAMINATION),
    ];
    let wrong = expected.into_iter().filter(|(_, same)| !same);
    wrong
        .map(|(key, _)| format!("`{key}` is not what its values say in words"))
        .collect()
}

/// What a dataset card must hold.
pub fn of_card(said: &Claim) -> Vec<String> {
    let mut out: Vec<String> = sentences(said).into();
    out.extend(
        [
            wording::TRUST,
            wording::OUTSIDE,
            wording::WITHHELD,
            wording::CONTAMINATION,
        ]
        .map(String::from),
    );
    out.extend(said.guarantee.composition.as_ref().map(wording::composition));
    out
}

/// What it means, what attacks can do, what neighbours are, what is declared public.
fn sentences(said: &Claim) -> [String; 4] {
    let g = &said.guarantee;
    // A unit that is none is told of with the values.
    let unit = values::unit(said).unwrap_or(crate::privacy::Unit::Record);
    [
        wording::plain("This dataset", &unit, &g.parameters),
        wording::attacks(&g.attacks, &unit),
        wording::neighbours(&unit),
        wording::declared(g.public_size, &g.parameters),
    ]
}
