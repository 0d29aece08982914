//! Times as dates of the Gregorian calendar, in UTC, for responses and log lines.
//!
//! Belongs here: the arithmetic and the digits. Does not belong here: a clock, time zones, parsing a date.

/// A time in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) year: u64,
    /// 0 is January.
    pub(crate) month: u64,
    /// 1 is the first.
    pub(crate) day: u64,
    /// 0 is Thursday, as on the first day of the epoch.
    pub(crate) weekday: u64,
    pub(crate) hour: u64,
    pub(crate) minute: u64,
    pub(crate) second: u64,
    pub(crate) millisecond: u64,
}

impl Moment {
    /// Of seconds since the epoch, brought into the years 1970 to 9999.
    pub(crate) fn of(unix: f64) -> Self {
        let (seconds, millisecond) = seconds_of(unix);
        let (days, time) = (seconds / 86_400, seconds % 86_400);
        // Days to a date of the Gregorian calendar, counted in eras of 400 years that begin in March (Howard
        // Hinnant, "chrono-Compatible Low-Level Date Algorithms").
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = (month_from_march + 2) % 12;
        Self {
            year: year_of_era + era * 400 + u64::from(month < 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            weekday: days % 7,
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
            millisecond,
        }
    }
}

/// Whole seconds since the epoch, and milliseconds, of a time in the years 1970 to 9999.
pub(crate) fn seconds_of(unix: f64) -> (u64, u64) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to years of four digits")]
    let milliseconds = (unix * 1000.0).clamp(0.0, 253_402_300_799_999.0) as u64;
    (milliseconds / 1000, milliseconds % 1000)
}

/// Append the last `N` decimal digits of a number.
pub(crate) fn write_digits<const N: usize>(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&digits::<N>(value));
}

/// The last `N` decimal digits of a number.
#[allow(clippy::cast_possible_truncation, reason = "one decimal digit each")]
pub(crate) fn digits<const N: usize>(mut value: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit += (value % 10) as u8;
        value /= 10;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        let of = |unix| {
            let moment = Moment::of(unix);
            let Moment { year, month, day, weekday, hour, minute, second, millisecond } = moment;
            ([year, month + 1, day, weekday], [hour, minute, second, millisecond])
        };
        for (unix, date, time) in [
            (0.0, [1970, 1, 1, 0], [0, 0, 0, 0]),
            (951_782_399.5, [2000, 2, 28, 4], [23, 59, 59, 500]),
            (951_782_400.0, [2000, 2, 29, 5], [0, 0, 0, 0]),
            (951_868_800.0, [2000, 3, 1, 6], [0, 0, 0, 0]),
            (4_107_542_399.0, [2100, 2, 28, 3], [23, 59, 59, 0]),
            (4_107_542_400.0, [2100, 3, 1, 4], [0, 0, 0, 0]),
            (253_402_300_799.999, [9999, 12, 31, 1], [23, 59, 59, 999]),
            (f64::INFINITY, [9999, 12, 31, 1], [23, 59, 59, 999]),
            (f64::NAN, [1970, 1, 1, 0], [0, 0, 0, 0]),
            (-1.0, [1970, 1, 1, 0], [0, 0, 0, 0]),
        ] {
            assert_eq!(of(unix), (date, time), "{unix}");
        }
    }

    #[test]
    fn digits_have_their_width() {
        assert_eq!(&digits::<4>(7), b"0007");
        assert_eq!(&digits::<2>(1234), b"34");
    }
}
