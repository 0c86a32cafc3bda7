//! The day that `strftime_now` takes for today.

use super::TemplateError;
use minijinja::{Error, ErrorKind};

/// A day of the Gregorian calendar, what `strftime_now` takes for today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

impl Date {
    /// 26 July 2024.
    pub const DEFAULT: Self = Self {
        year: 2024,
        month: 7,
        day: 26,
    };

    /// A date, if it exists.
    ///
    /// # Errors
    /// [`TemplateError::Date`] when it does not.
    pub fn new(year: u16, month: u8, day: u8) -> Result<Self, TemplateError> {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days = match month {
            2 => 28 + u8::from(leap),
            4 | 6 | 9 | 11 => 30,
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            _ => 0,
        };
        if (1..=9999).contains(&year) && (1..=days).contains(&day) {
            Ok(Self { year, month, day })
        } else {
            Err(TemplateError::Date { year, month, day })
        }
    }

    /// Day of the week, Sunday = 0 (Sakamoto's method).
    fn weekday(self) -> usize {
        const SHIFT: [usize; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = usize::from(self.year) - usize::from(self.month < 3);
        let month = usize::from(self.month) - 1;
        (year + year / 4 - year / 100 + year / 400 + SHIFT[month] + usize::from(self.day)) % 7
    }

    /// `strftime` at midnight of this day, for the directives that name a date.
    pub(super) fn format(self, format: &str) -> Result<String, Error> {
        let month = MONTHS[usize::from(self.month) - 1];
        let weekday = WEEKDAYS[self.weekday()];
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let directive = chars.next();
            let piece = match directive {
                Some('d') => format!("{:02}", self.day),
                Some('m') => format!("{:02}", self.month),
                Some('Y') => format!("{:04}", self.year),
                Some('y') => format!("{:02}", self.year % 100),
                Some('b') => month[..3].to_owned(),
                Some('B') => month.to_owned(),
                Some('a') => weekday[..3].to_owned(),
                Some('A') => weekday.to_owned(),
                Some('H' | 'M' | 'S') => "00".to_owned(),
                Some('F') => self.format("%Y-%m-%d")?,
                Some('T') => "00:00:00".to_owned(),
                Some('%') => "%".to_owned(),
                other => {
                    let what = format!("strftime_now: directive %{} is not supported", other.unwrap_or(' '));
                    return Err(Error::new(ErrorKind::InvalidOperation, what));
                }
            };
            out.push_str(&piece);
        }
        Ok(out)
    }
}
