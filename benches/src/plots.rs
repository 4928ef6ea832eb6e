//! Plots of what was measured, as SVG: lines over a number, and bars in groups.
//!
//! They are for pages of documentation, on a white or a dark background, so they bring a white one of their own. Text stays text, in
//! whatever sans-serif font the reader has: nothing here knows fonts, widths are estimates. Colours are those of Okabe and Ito, which people who see few
//! colours can tell apart, and each line has its own kind of marker too. Legends stand to the right, where they hide nothing.
//!
//! Axes of values begin at 0, so that lengths mean what they seem to. Points that can't be drawn (not finite; not positive on a logarithmic
//! axis) are left out.

use std::fmt;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const SIZE: (u32, u32) = (800, 420);
const LEGEND_WIDTH: u32 = 150;
const LEGEND_STEP: i32 = 22;
const MARGIN: u32 = 14;
const FONT: &str = "sans-serif";
const TITLE_SIZE: u32 = 18;
const TEXT_SIZE: u32 = 13;
const MARKER: i32 = 4;
/// A line of more points goes without markers, which would run into each other.
const MARKERS_MAX: usize = 60;
/// Marks on an axis, about.
const MARKS: usize = 8;
/// With more doublings than this a logarithmic axis has a mark for each power of ten.
const DOUBLINGS_MAX: f64 = 12.0;
/// Of a group's width.
const BARS_WIDTH: f64 = 0.8;

/// Okabe and Ito, *Color Universal Design*: blue, vermilion, green, purple, orange, sky blue, black.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x00, 0x00),
];
const AXIS: RGBColor = RGBColor(0x55, 0x55, 0x55);
const MESH: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Lines with a marker at each point, if there are not too many.
pub struct Chart {
    pub title: String,
    pub x: String,
    pub y: String,
    pub log_x: bool,
    pub lines: Vec<Line>,
}

/// Groups of bars; bars of the same name have the same colour in each.
pub struct Bars {
    pub title: String,
    pub y: String,
    pub groups: Vec<(String, Vec<(String, f64)>)>,
}

#[derive(Debug)]
pub struct Error {
    title: String,
    why: String,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "could not draw the plot \"{}\": {}", self.title, self.why)
    }
}

impl std::error::Error for Error {}

/// What drawing can fail with; the SVG is made in memory, so hardly anything.
type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Axes<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// Numbers from left to right, or from below, with these marked.
struct Axis {
    range: Range<f64>,
    marks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

/// The text of an SVG file.
pub fn line_chart(chart: &Chart) -> Result<String, Error> {
    draw(&chart.title, |area| draw_lines(area, chart))
}

/// The text of an SVG file.
pub fn bar_chart(bars: &Bars) -> Result<String, Error> {
    draw(&bars.title, |area| draw_bars(area, bars))
}

fn draw(title: &str, on: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, Error> {
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    let drawn =
        area.fill(&WHITE).map_err(Into::into).and_then(|()| on(&area)).and_then(|()| area.present().map_err(Into::into));
    drop(area);
    match drawn {
        Ok(()) => Ok(text),
        Err(error) => Err(Error { title: title.to_owned(), why: error.to_string() }),
    }
}

fn draw_lines(area: &Area<'_>, chart: &Chart) -> Drawn {
    let place = |&(x, y): &(f64, f64)| {
        let x = if chart.log_x { x.log2() } else { x };
        (x.is_finite() && y.is_finite()).then_some((x, y))
    };
    let lines: Vec<Vec<(f64, f64)>> =
        chart.lines.iter().map(|line| line.points.iter().filter_map(place).collect()).collect();
    let points = || lines.iter().flatten();
    let across = range(points().map(|point| point.0), false);
    let marks = if chart.log_x { logarithmic_marks(&across) } else { marks(&across) };
    let across = Axis { range: widened(across), marks };
    let up = range(points().map(|point| point.1), true);
    let (plot, legend) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    let mut axes = axes(&plot, &chart.title, across, up)?;
    let number = |x: &f64| number(if chart.log_x { x.exp2() } else { *x });
    mesh(&mut axes, &chart.x, &chart.y, &number)?;
    for (index, points) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        axes.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
        for &point in points.iter().filter(|_| points.len() <= MARKERS_MAX) {
            draw_marker(area, index, axes.plotting_area().map_coordinate(&point))?;
        }
    }
    let names = chart.lines.iter().map(|line| line.name.as_str());
    draw_legend(&legend, names, |legend, index, at| {
        let ends = [(at.0 - 12, at.1), (at.0 + 12, at.1)];
        legend.draw(&PathElement::new(ends, COLOURS[index % COLOURS.len()].stroke_width(2)))?;
        draw_marker(legend, index, at)
    })
}

fn draw_bars(area: &Area<'_>, bars: &Bars) -> Drawn {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in bars.groups.iter().flat_map(|(_, bars)| bars) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let values = bars.groups.iter().flat_map(|(_, bars)| bars).map(|(_, value)| *value).filter(|value| value.is_finite());
    let up = range(values, true);
    let marks = (0..bars.groups.len()).map(|group| group as f64).collect();
    let across = Axis { range: -0.5..bars.groups.len().max(1) as f64 - 0.5, marks };
    let (plot, legend) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    let mut axes = axes(&plot, &bars.title, across, up)?;
    let group = |x: &f64| bars.groups.get(x.round().max(0.0) as usize).map_or(String::new(), |(name, _)| name.clone());
    mesh(&mut axes, "", &bars.y, &group)?;
    let width = BARS_WIDTH / names.len().max(1) as f64;
    for (group, (_, values)) in bars.groups.iter().enumerate() {
        for (name, value) in values.iter().filter(|(_, value)| value.is_finite()) {
            let index = names.iter().position(|known| known == name).unwrap_or_default();
            let left = group as f64 - BARS_WIDTH / 2.0 + index as f64 * width;
            // A little air on both sides.
            let corners = [(left + width * 0.05, 0.0), (left + width * 0.95, *value)];
            axes.draw_series([Rectangle::new(corners, COLOURS[index % COLOURS.len()].filled())])?;
        }
    }
    draw_legend(&legend, names.iter().copied(), |legend, index, at| {
        let corners = [(at.0 - 7, at.1 - 7), (at.0 + 7, at.1 + 7)];
        Ok(legend.draw(&Rectangle::new(corners, COLOURS[index % COLOURS.len()].filled()))?)
    })
}

fn axes<'a, 'b>(
    plot: &'a Area<'b>,
    title: &str,
    across: Axis,
    up: Range<f64>,
) -> Result<Axes<'a, 'b>, Box<dyn std::error::Error>> {
    let up = Axis { marks: marks(&up), range: up };
    let axes = ChartBuilder::on(plot)
        .caption(title, (FONT, TITLE_SIZE).into_font().color(&BLACK))
        .margin(MARGIN)
        .x_label_area_size(46)
        .y_label_area_size(68)
        .build_cartesian_2d(across, up)?;
    Ok(axes)
}

fn mesh(axes: &mut Axes<'_, '_>, x: &str, y: &str, name: &dyn Fn(&f64) -> String) -> Drawn {
    let text = (FONT, TEXT_SIZE).into_font().color(&BLACK);
    let mesh = &mut axes.configure_mesh();
    mesh.disable_x_mesh().light_line_style(TRANSPARENT).bold_line_style(MESH).axis_style(AXIS);
    mesh.label_style(text.clone()).axis_desc_style(text).x_desc(x).y_desc(y);
    mesh.x_label_formatter(name).y_label_formatter(&|value| number(*value)).draw()?;
    Ok(())
}

fn draw_legend<'n>(
    legend: &Area<'_>,
    names: impl Iterator<Item = &'n str>,
    sign: impl Fn(&Area<'_>, usize, (i32, i32)) -> Drawn,
) -> Drawn {
    let style = (FONT, TEXT_SIZE).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
    for (index, name) in names.enumerate() {
        let y = 60 + index as i32 * LEGEND_STEP;
        sign(legend, index, (14, y))?;
        legend.draw_text(name, &style, (32, y))?;
    }
    Ok(())
}

/// Kinds by turns: circle, square, triangle, cross.
fn draw_marker(area: &Area<'_>, index: usize, at: (i32, i32)) -> Drawn {
    let style = COLOURS[index % COLOURS.len()];
    match index % 4 {
        0 => area.draw(&Circle::new(at, MARKER, style.filled()))?,
        1 => area.draw(&Rectangle::new([(at.0 - MARKER, at.1 - MARKER), (at.0 + MARKER, at.1 + MARKER)], style.filled()))?,
        2 => area.draw(&TriangleMarker::new(at, MARKER + 2, style.filled()))?,
        _ => area.draw(&Cross::new(at, MARKER, style.stroke_width(2)))?,
    }
    Ok(())
}

/// From the least to the most; for an axis of values from 0, and with air above. Never empty.
fn range(values: impl Iterator<Item = f64>, from_zero: bool) -> Range<f64> {
    let (low, high) =
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return 0.0..1.0;
    }
    let (low, high) = if from_zero { (low.min(0.0), high.max(0.0) * 1.05) } else { (low, high) };
    if low < high { low..high } else { low..low + 1.0 }
}

/// So that the first and the last point stand free of the frame.
fn widened(range: Range<f64>) -> Range<f64> {
    let air = (range.end - range.start) * 0.04;
    range.start - air..range.end + air
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn marks(range: &Range<f64>) -> Vec<f64> {
    let rough = (range.end - range.start) / MARKS as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
    let first = (range.start / step).ceil();
    let count = ((range.end / step).floor() - first).clamp(0.0, 4.0 * MARKS as f64) as usize;
    (0..=count).map(|mark| (first + mark as f64) * step).collect()
}

/// Logarithms to base 2 of powers of two, or of powers of ten where those would be too many.
fn logarithmic_marks(range: &Range<f64>) -> Vec<f64> {
    let step = if range.end - range.start <= DOUBLINGS_MAX { 1.0 } else { 10f64.log2() };
    let (first, last) = ((range.start / step).floor() as i32, (range.end / step).ceil() as i32);
    (first..=last).map(|mark| f64::from(mark) * step).filter(|mark| widened(range.clone()).contains(mark)).collect()
}

/// As short as it can be said: thousands apart, no zeros behind the point.
fn number(value: f64) -> String {
    let rounded = (value * 1e6).round() / 1e6;
    let text = if rounded.abs() >= 1e4 { format!("{rounded:.0}") } else { format!("{rounded}") };
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
    let (whole, rest) = digits.split_at(digits.find('.').unwrap_or(digits.len()));
    if whole.len() < 4 {
        return text;
    }
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(log_x: bool, lines: &[(&str, &[(f64, f64)])]) -> Chart {
        let lines = lines.iter().map(|(name, points)| Line { name: (*name).to_owned(), points: points.to_vec() }).collect();
        Chart {
            title: "simple-update & more".to_owned(),
            x: "clients".to_owned(),
            y: "transactions a second".to_owned(),
            log_x,
            lines,
        }
    }

    /// Every tag is closed, in the right order.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1) {
            let (tag, text) = tag.split_once('>').unwrap_or_else(|| panic!("a tag without an end: <{tag}"));
            assert!(!text.contains('&') || text.contains(';'), "not escaped: {text}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "{svg}"),
                None if tag.ends_with('/') || tag.starts_with(['?', '!']) => {}
                None => open.extend(tag.split_whitespace().next()),
            }
        }
        assert!(open.is_empty() && svg.trim_end().ends_with("</svg>"), "{open:?}");
    }

    #[test]
    fn a_chart_has_every_name_in_it() {
        let plain: &[(f64, f64)] = &[(1.0, 1181.0), (8.0, 3069.0), (32.0, 2349.0)];
        let group: &[(f64, f64)] = &[(1.0, 479.0), (8.0, 1126.0), (32.0, 1218.0)];
        for log_x in [false, true] {
            let svg = line_chart(&chart(log_x, &[("plain", plain), ("group", group)])).unwrap();
            assert_well_formed(&svg);
            for name in
                ["simple-update &amp; more", "clients", "transactions a second", "plain", "group", "sans-serif", "32"]
            {
                assert!(svg.contains(name), "no {name} in {svg}");
            }
        }
    }

    #[test]
    fn bars_have_every_name_in_them() {
        let groups = [
            ("tpcb-like", [("plain", 1636.0), ("group", 736.0)]),
            ("select-only", [("plain", 13820.0), ("group", 13218.0)]),
        ];
        let groups =
            groups.map(|(group, bars)| (group.to_owned(), bars.map(|(name, value)| (name.to_owned(), value)).to_vec()));
        let svg = bar_chart(&Bars { title: "32 clients".to_owned(), y: "tps".to_owned(), groups: groups.to_vec() }).unwrap();
        assert_well_formed(&svg);
        for name in ["32 clients", "tps", "tpcb-like", "select-only", "plain", "group", "10,000"] {
            assert!(svg.contains(name), "no {name} in {svg}");
        }
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        let none = Bars { title: String::new(), y: String::new(), groups: Vec::new() };
        let odd =
            Bars { groups: vec![("a".to_owned(), vec![("b".to_owned(), f64::NAN)]), ("c".to_owned(), Vec::new())], ..none };
        assert_well_formed(&bar_chart(&odd).unwrap());
        assert_well_formed(&bar_chart(&Bars { groups: Vec::new(), ..odd }).unwrap());
        for log_x in [false, true] {
            assert_well_formed(&line_chart(&chart(log_x, &[])).unwrap());
            let points = &[(0.0, 1.0), (f64::NAN, 1.0), (1.0, f64::INFINITY), (-1.0, 0.0), (3.0, 0.0)];
            assert_well_formed(&line_chart(&chart(log_x, &[("none", &[]), ("odd", points)])).unwrap());
        }
    }

    #[test]
    fn marks_are_round_numbers() {
        assert_eq!(marks(&(0.0..3200.0)), [0.0, 500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0]);
        assert_eq!(logarithmic_marks(&(0.0..5.0)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(
            ["0.3", "150", "1,500", "12,500", "-1,250,000"].map(str::to_owned),
            [0.3, 150.0, 1500.0, 12500.0, -1.25e6].map(number)
        );
    }
}
