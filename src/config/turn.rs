//! What the user asks for is a template over a record's labels.

use minijinja::{Environment, Error, UndefinedBehavior, Value};

/// `text` with `values` in it; a name that has none is an error.
///
/// # Errors
/// It does not render.
pub fn turn(text: &str, values: Value) -> Result<String, Error> {
    let mut turns = Environment::new();
    turns.set_undefined_behavior(UndefinedBehavior::Strict);
    turns.render_str(text, values)
}

/// Whether a template can name it by `{{ name }}`: most words, and none that means something there.
pub fn is_variable(name: &str) -> bool {
    turn(&format!("{{{{ {name} }}}}"), Value::from_pairs([(name, "x")])).is_ok_and(|text| text == "x")
}
