//! Charts as SVG. Their colours are named by what they mean; a page with a dark scheme paints the same names differently.

use plotters::{
    coord::ranged1d::{AsRangedCoord, ValueFormatter},
    prelude::*,
};

/// Width of every chart, in its own units: what fits a phone without small print.
pub const WIDTH: u32 = 520;
/// Height of every chart.
pub const HEIGHT: u32 = 260;
/// Most points of a line; beyond it every other one is left out.
pub const MAX_POINTS: usize = 1_200;

/// What a colour means. The colours are those of Okabe and Ito (2008), which the colour-blind tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Axes and words.
    Text,
    /// Grid lines.
    Grid,
    /// Rescues, and Seawall beside another chain.
    Rescue,
    /// Trades.
    Trade,
    /// The other chain.
    Baseline,
    /// What theory said.
    Theory,
    /// What could be done at most, what is true outside.
    Limit,
    /// Times of faults.
    Fault,
    /// Times without a price that counts.
    Blind,
}

impl Ink {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::Text,
        Self::Grid,
        Self::Rescue,
        Self::Trade,
        Self::Baseline,
        Self::Theory,
        Self::Limit,
        Self::Fault,
        Self::Blind,
    ];

    /// Name in style sheets.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Grid => "grid",
            Self::Rescue => "rescue",
            Self::Trade => "trade",
            Self::Baseline => "baseline",
            Self::Theory => "theory",
            Self::Limit => "limit",
            Self::Fault => "fault",
            Self::Blind => "blind",
        }
    }

    /// Red, green, blue on white, and on black.
    pub const fn colours(self) -> [(u8, u8, u8); 2] {
        match self {
            Self::Text => [(36, 41, 47), (214, 219, 225)],
            Self::Grid => [(222, 226, 231), (52, 58, 66)],
            Self::Rescue => [(0, 114, 178), (86, 180, 233)],
            Self::Trade => [(0, 140, 102), (38, 196, 148)],
            Self::Baseline => [(213, 94, 0), (255, 140, 60)],
            Self::Theory => [(170, 80, 130), (224, 150, 192)],
            Self::Limit => [(110, 118, 128), (148, 157, 168)],
            Self::Fault => [(230, 159, 0), (230, 159, 1)],
            Self::Blind => [(120, 120, 130), (150, 150, 160)],
        }
    }

    fn paint(self) -> RGBColor {
        let (red, green, blue) = self.colours()[0];
        RGBColor(red, green, blue)
    }

    /// Rules that repaint charts for a dark page.
    pub fn dark_rules() -> String {
        let hex = |(red, green, blue): (u8, u8, u8)| format!("#{red:02X}{green:02X}{blue:02X}");
        let rule = |ink: &Self| {
            let [light, dark] = ink.colours().map(hex);
            format!(
                "svg [fill=\"{light}\"]{{fill:{dark}}}svg [stroke=\"{light}\"]{{stroke:{dark}}}.ink-{}{{color:{dark}}}",
                ink.name()
            )
        };
        Self::ALL.iter().map(rule).collect()
    }

    /// Rules that name the colours for words and legends.
    pub fn light_rules() -> String {
        let rule = |ink: &Self| {
            let (red, green, blue) = ink.colours()[0];
            format!(".ink-{}{{color:rgb({red},{green},{blue})}}", ink.name())
        };
        Self::ALL.iter().map(rule).collect()
    }
}

/// How a series is drawn. Lines differ in more than colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A line.
    Line,
    /// A line in pieces.
    Dashed,
    /// A line that keeps its height until the next point.
    Steps,
    /// Dots.
    Dots,
}

/// A series.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is.
    pub name: &'static str,
    /// Colour.
    pub ink: Ink,
    /// Shape.
    pub shape: Shape,
    /// Points by ascending x.
    pub points: Vec<(f64, f64)>,
}

/// A span of x that is shaded.
#[derive(Clone, Debug)]
pub struct Band {
    /// Colour.
    pub ink: Ink,
    /// From.
    pub from: f64,
    /// To.
    pub to: f64,
    /// Written at its top.
    pub label: String,
}

/// How an axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from zero if that is near.
    Linear,
    /// Evenly, around what there is.
    Fitted,
    /// By logarithms.
    Log,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Heading.
    pub title: &'static str,
    /// A sentence on how to read it.
    pub note: String,
    /// What x is.
    pub x: &'static str,
    /// What y is.
    pub y: &'static str,
    /// How x runs.
    pub x_scale: Scale,
    /// How y runs.
    pub y_scale: Scale,
    /// What is drawn.
    pub series: Vec<Series>,
    /// What is shaded.
    pub bands: Vec<Band>,
}

/// A number with few digits: 1.2k, 350, 0.04.
pub fn short(value: f64) -> String {
    let size = value.abs();
    let (scaled, unit) = match size {
        _ if size >= 1e9 => (value / 1e9, "G"),
        _ if size >= 1e6 => (value / 1e6, "M"),
        _ if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        size if size >= 100.0 || size == size.trunc() => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

impl Chart {
    /// Whether there is anything to see.
    pub fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.points.is_empty())
    }

    fn range(&self, scale: Scale, of: impl Fn(&(f64, f64)) -> f64) -> (f64, f64) {
        let values = || {
            let all = self.series.iter().flat_map(|series| &series.points).map(&of);
            all.filter(|value| value.is_finite() && (scale != Scale::Log || *value > 0.0))
        };
        let (low, high) = values().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return if scale == Scale::Log { (1.0, 10.0) } else { (0.0, 1.0) };
        }
        match scale {
            Scale::Linear => (low.min(0.0), if high > 0.0 { high * 1.08 } else { 1.0 }),
            Scale::Fitted => {
                let edge = ((high - low) * 0.08).max(high.abs() * 1e-3).max(1e-9);
                (low - edge, high + edge)
            }
            Scale::Log => (low / 1.15, high.max(low * 1.5) * 1.15),
        }
    }

    /// The chart as an `<svg>` element.
    pub fn svg(&self) -> String {
        let (x0, x1) = match self.x_scale {
            Scale::Fitted => {
                let (low, high) = self.range(Scale::Fitted, |point| point.0);
                let edge = (high - low) * 0.08 / 1.16;
                (low + edge, (high - edge).max(low + edge + 1e-9))
            }
            Scale::Linear => {
                let (low, _) = self.range(Scale::Linear, |point| point.0);
                let ends = self.series.iter().filter_map(|series| series.points.last());
                (low, ends.map(|point| point.0).fold(low + 1e-9, f64::max))
            }
            Scale::Log => self.range(Scale::Log, |point| point.0),
        };
        let (y0, y1) = self.range(self.y_scale, |point| point.1);
        let mut text = String::new();
        {
            let root = SVGBackend::with_string(&mut text, (WIDTH, HEIGHT)).into_drawing_area();
            // Writing to memory cannot fail, and every range has a length.
            let drawn = match (self.x_scale, self.y_scale) {
                (Scale::Log, Scale::Log) => self.draw(&root, (x0..x1).log_scale(), (y0..y1).log_scale(), y0),
                (Scale::Log, _) => self.draw(&root, (x0..x1).log_scale(), y0..y1, y0),
                (_, Scale::Log) => self.draw(&root, x0..x1, (y0..y1).log_scale(), y0),
                _ => self.draw(&root, x0..x1, y0..y1, y0),
            };
            let shown = drawn.and_then(|()| root.present());
            debug_assert!(shown.is_ok());
        }
        let head = format!("<svg role=\"img\" aria-label=\"{}\" ", self.title);
        text.replacen(&format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" "), &head, 1)
    }

    fn draw<DB, X, Y>(
        &self,
        root: &DrawingArea<DB, plotters::coord::Shift>,
        x: X,
        y: Y,
        floor: f64,
    ) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>>
    where
        DB: DrawingBackend,
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
        Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    {
        let text = |size: u32| ("sans-serif", size).into_font().color(&Ink::Text.paint());
        let mut chart = ChartBuilder::on(root)
            .margin_top(8)
            .margin_right(14)
            .margin_bottom(2)
            .margin_left(2)
            .x_label_area_size(40)
            .y_label_area_size(62)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(Ink::Grid.paint())
            .axis_style(Ink::Limit.paint())
            .label_style(text(14))
            .axis_desc_style(text(14))
            .x_labels(6)
            .y_labels(5)
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .x_desc(self.x)
            .y_desc(self.y)
            .draw()?;
        let (xs, ys) = (chart.x_range(), chart.y_range());
        for band in &self.bands {
            let (from, to) = (band.from.max(xs.start), band.to.min(xs.end));
            if from >= to {
                continue;
            }
            let area = [(from, ys.start), (to, ys.end)];
            chart.draw_series([Rectangle::new(area, band.ink.paint().mix(0.2).filled())])?;
            if !band.label.is_empty() {
                chart.draw_series([Text::new(band.label.clone(), (from, ys.end), text(13))])?;
            }
        }
        for series in &self.series {
            let mut points = series.points.clone();
            while points.len() > MAX_POINTS {
                let mut odd = true;
                points.retain(|_| {
                    odd = !odd;
                    odd
                });
            }
            // A logarithmic axis has no zero: what lies there is drawn on its edge.
            points.iter_mut().for_each(|point| point.1 = point.1.max(floor));
            let paint = series.ink.paint();
            match series.shape {
                Shape::Line => {
                    chart.draw_series(LineSeries::new(points, paint.stroke_width(2)))?;
                }
                Shape::Dashed => {
                    let line = paint.stroke_width(2);
                    chart.draw_series(DashedLineSeries::new(points, 6, 4, line))?;
                }
                Shape::Steps => {
                    let mut steps = Vec::with_capacity(points.len() * 2);
                    for point in points {
                        if let Some(&(_, last)) = steps.last() {
                            steps.push((point.0, last));
                        }
                        steps.push(point);
                    }
                    chart.draw_series(LineSeries::new(steps, paint.stroke_width(2)))?;
                }
                Shape::Dots => {
                    chart.draw_series(points.into_iter().map(|at| Circle::new(at, 3, paint.filled())))?;
                }
            }
        }
        Ok(())
    }
}
