//! Fisher artefacts, generalised eigenproblems and the safety subspace.
