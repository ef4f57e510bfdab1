//! Percentiles that are values which occurred.

/// The smallest value that at least this part of all (0 to 100) doesn't exceed; `None` of nothing. Sorts the values.
pub fn percentile<T: Copy + PartialOrd>(values: &mut [T], percent: usize) -> Option<T> {
    values.sort_unstable_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    let index = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut values: Vec<u32> = (1..=200).rev().collect();
        assert_eq!(percentile(&mut values, 50), Some(100));
        assert_eq!(percentile(&mut values, 99), Some(198));
        assert_eq!(percentile(&mut values, 100), Some(200));
        assert_eq!(percentile(&mut [] as &mut [u32], 50), None);
        assert_eq!(percentile(&mut [3.0, 1.0, 2.0], 50), Some(2.0));
    }
}
