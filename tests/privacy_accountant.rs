//! The accountant against reference numbers, and the laws it must keep.

use dpsynth::privacy::accountant::{Phase, pld, rdp};
use dpsynth::privacy::calibrate;
use std::time::Instant;

#[test]
fn explore() {
    let path = "/work/shared/reference/accounting_reference.csv";
    let text = std::fs::read_to_string(path).unwrap();
    let head: Vec<&str> = text.lines().next().unwrap().split(',').collect();
    let col = |n: &str| head.iter().position(|h| *h == n).unwrap();
    let mut bad = 0;
    for line in text.lines().skip(1) {
        let c: Vec<&str> = line.split(',').collect();
        let f = |n: &str| c[col(n)].parse::<f64>().unwrap_or(f64::NAN);
        let phase = Phase::new(f("q"), f("sigma"), f("T") as u64).unwrap();
        let t = Instant::now();
        let b = pld::epsilon(&[phase], f("delta")).unwrap();
        let ms = t.elapsed().as_secs_f64() * 1e3;
        let r = rdp::epsilon(&[phase], f("delta")).unwrap();
        let d1 = pld::delta(&[phase], 1.0).unwrap();
        let e = f("eps_dpacc_pld");
        let ok = b.epsilon >= f("bracket_low")
            && b.epsilon <= f("bracket_high") + 0.01
            && (b.epsilon - e).abs() <= f64::max(1e-3, 2e-3 * e)
            && b.epsilon_lower <= b.epsilon
            && b.epsilon_lower <= f("bracket_high");
        let okr = (r.epsilon / f("eps_dpacc_rdp") - 1.0).abs() < 1e-3;
        if !(ok && okr) {
            bad += 1;
        }
        println!(
            "{} {} q={:.5} s={} T={} d={:e} ref={:.6} got={:.6} lower={:.6} rel={:+.2e} gap={:.2e} ms={ms:.1} rdp {:.5} {:.5} o={} {} delta1 {:.4e} ref {:.4e}",
            if ok && okr { "ok " } else { "BAD" },
            c[0],
            f("q"),
            f("sigma"),
            f("T"),
            f("delta"),
            e,
            b.epsilon,
            b.epsilon_lower,
            b.epsilon / e - 1.0,
            b.epsilon - b.epsilon_lower,
            r.epsilon,
            f("eps_dpacc_rdp"),
            r.order,
            c[col("rdp_order")],
            d1,
            f("delta_at_eps1_pld")
        );
    }
    println!("bad {bad}");
    let text = std::fs::read_to_string("/work/shared/reference/accounting_sigma_reference.csv").unwrap();
    for line in text.lines().skip(1) {
        let c: Vec<&str> = line.split(',').collect();
        let f = |i: usize| c[i].parse::<f64>().unwrap();
        let t = Instant::now();
        let s = calibrate::noise_multiplier(f(6), f(5), f(3), f(4) as u64).unwrap();
        let rel = s / f(7) - 1.0;
        println!(
            "{} q={:.4} T={} eps={} sigma ref {:.6} got {:.6} rel {:+.1e} ms {:.0}",
            if rel.abs() < 1e-3 { "ok " } else { "BAD" },
            f(3),
            f(4),
            f(6),
            f(7),
            s,
            rel,
            t.elapsed().as_secs_f64() * 1e3
        );
    }
    panic!("look");
}
