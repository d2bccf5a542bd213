//! Numbers for people, rounded so that nothing printed claims more than was computed.

/// Six decimals, rounded up, so that no printed epsilon claims more than was computed.
pub fn up(epsilon: f64) -> String {
    format!("{:.6}", (epsilon * 1e6).ceil() / 1e6)
}

/// Six decimals, rounded down: for the lower end of the bracket.
pub fn down(epsilon: f64) -> String {
    format!("{:.6}", (epsilon * 1e6).floor() / 1e6)
}

/// A delta as a person writes it, 1e-5 or 2.87e-7, rounded up.
pub fn short(delta: f64) -> String {
    let nearest = format!("{delta:.6e}");
    let text = if nearest.parse::<f64>().is_ok_and(|near| near < delta) {
        format!("{:.6e}", delta * (1.0 + 1e-6))
    } else {
        nearest
    };
    match text.split_once('e') {
        Some((digits, power)) => format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.')),
        None => text,
    }
}
