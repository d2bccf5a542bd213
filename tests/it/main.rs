//! All tests of the program and the library from outside, in one program: the heavy dependencies are linked once.
#![allow(clippy::print_stdout, reason = "slow tests say what they measured")]

mod common;
#[path = "../support/mod.rs"]
mod support;

mod assets;
mod audit;
mod bench;
mod classify;
mod clearance;
mod cli;
mod compare;
mod crash;
#[cfg(feature = "cuda-plain")]
mod cuda;
mod direct;
mod documents;
mod evaluation;
mod export;
mod files;
mod first_try;
mod full;
mod fused;
mod fuzz;
mod gpt2;
mod lexicon;
mod low_dimensional;
mod methods;
mod models;
mod objective;
mod page;
mod parity;
mod pipeline;
mod privacy_cli;
mod privacy_planner;
mod private_loop;
mod qlora;
mod quality;
mod records;
mod release;
mod rules;
mod sampling;
mod status;
mod terminal;
mod training;
