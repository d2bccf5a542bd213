//! Numbers for people, rounded so that nothing printed claims more than was computed.

/// An epsilon with so many decimals, rounded up: no printed epsilon claims more than was computed.
pub fn up(epsilon: f64, decimals: usize) -> String {
    let write = |value: f64| format!("{value:.decimals$}");
    let nearest = write(epsilon);
    match nearest.parse() {
        Ok(near) if epsilon > near => write(epsilon + unit(0, decimals)),
        _ => nearest,
    }
}

/// The same rounded down: for the lower end of the bracket.
pub fn down(epsilon: f64, decimals: usize) -> String {
    let write = |value: f64| format!("{value:.decimals$}");
    let nearest = write(epsilon);
    match nearest.parse() {
        Ok(near) if epsilon < near => write(epsilon - unit(0, decimals)),
        _ => nearest,
    }
}

/// A delta as 2.87e-7, with so many decimals, rounded up.
pub fn delta(value: f64, decimals: usize) -> String {
    let write = |value: f64| format!("{value:.decimals$e}");
    let nearest = write(value);
    match nearest.parse() {
        Ok(near) if value > near => write(value + unit(value.log10().floor() as i32, decimals)),
        _ => nearest,
    }
}

/// A delta as a person writes it, 1e-5 or 2.87e-7, rounded up.
pub fn short(value: f64) -> String {
    let text = delta(value, 6);
    match text.split_once('e') {
        Some((digits, power)) => format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.')),
        None => text,
    }
}

/// A number with so many digits that count, such as a sampling rate: 0.01024, 0.00001234.
pub fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let power = value.abs().log10().floor().clamp(-300.0, 300.0);
    let decimals = (digits as f64 - 1.0 - power).clamp(0.0, 300.0) as usize;
    format!("{value:.decimals$}")
}

/// A share between 0 and 1 in per cent, with one decimal.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// One in the last of so many decimals of a number of that power of ten.
fn unit(power: i32, decimals: usize) -> f64 {
    10f64.powi(power - decimals as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn significant_digits_are_kept_however_small_a_number_is() {
        assert_eq!(
            [significant(0.01024, 4), significant(0.000_012_344, 4)],
            ["0.01024", "0.00001234"]
        );
        assert_eq!([significant(1.0, 4), significant(12345.6, 4)], ["1.000", "12346"]);
        assert_eq!([significant(0.0, 4), significant(f64::NAN, 4)], ["0", "NaN"]);
    }

    #[test]
    fn p10_no_number_claims_more_than_was_computed() {
        assert_eq!([up(3.99954, 3), up(1.1, 3), up(8.0, 6)], ["4.000", "1.100", "8.000000"]);
        assert_eq!(
            [up(1.0004, 3), down(1.0006, 3), down(8.2, 3)],
            ["1.001", "1.000", "8.200"]
        );
        assert_eq!([delta(1e-5, 2), delta(1.0801e-5, 2)], ["1.00e-5", "1.09e-5"]);
        assert_eq!([delta(9.999e-6, 2), delta(0.0, 2)], ["1.00e-5", "0.00e0"]);
        assert_eq!(
            [short(1e-5), short(2.8700001e-7), short(2.87e-7)],
            ["1e-5", "2.870001e-7", "2.87e-7"]
        );
    }
}
