//! The room as a whole: what it says of a policy against trying every name, and as people see it.

mod brute_force;
mod differences;
mod expectations;
mod explanations;
mod layouts;
mod schemas;
mod suggestions;
