//! Label-conditioned sampling: post-processing of the trained model, free of privacy cost whatever its settings.
//!
//! This room takes a model, prompts and public settings; it has no handle to private records. Records are drawn
//! ([`decode`], [`choose`]), scored under all labels by the model that drew them ([`score`]), kept, drawn anew or
//! relabelled by that ([`refine`]), and written ([`shards`]); how strongly labels guide them can be found by the same scores
//! ([`guide`]). Where a lexicon was paid for, its tokens are lifted by what they say of the label ([`evidence`]) and of the
//! domain ([`domain`]).

pub mod choose;
pub mod decode;
pub mod domain;
pub mod drawn;
pub mod evidence;
pub mod guide;
pub mod lexicon;
pub mod prior;
pub mod queue;
pub mod refine;
pub mod score;
pub mod shards;
