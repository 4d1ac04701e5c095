import { invalid } from '../../errors.ts';

const NANO = 1_000_000_000n;

/** Multipliers of the suffixes as nanounits, from the resource model of Kubernetes' API conventions. */
const SUFFIXES = new Map<string, bigint>([
  ['n', 1n],
  ['u', 1_000n],
  ['m', 1_000_000n],
  ['', NANO],
  ['k', NANO * 10n ** 3n],
  ['M', NANO * 10n ** 6n],
  ['G', NANO * 10n ** 9n],
  ['T', NANO * 10n ** 12n],
  ['P', NANO * 10n ** 15n],
  ['E', NANO * 10n ** 18n],
  ['Ki', NANO << 10n],
  ['Mi', NANO << 20n],
  ['Gi', NANO << 30n],
  ['Ti', NANO << 40n],
  ['Pi', NANO << 50n],
  ['Ei', NANO << 60n],
]);

const SHAPE = /^([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,2})|([numkMGTPE]|[KMGTPE]i)?)$/;

/** Larger exponents cannot name an amount that a node has, and would only cost time. */
const MAX_EXPONENT = 30;

/**
 * A Kubernetes quantity (`250m`, `1.5Gi`, `2e3`) in billionths of its unit, rounded up as Kubernetes does.
 * YAML gives plain numbers for `cpu: 2`, so numbers are read by their decimal form.
 *
 * @param field path of the value, for the error
 * @throws BerthError invalid
 */
export function parseQuantity(text: string | number, field: string): bigint {
  const wanted = 'must be a quantity such as 250m, 1.5 or 128Mi';
  const parts = SHAPE.exec(String(text).trim());
  const [whole, fraction] = [parts?.[2] ?? '', parts?.[3] ?? ''];
  if (parts === null || whole + fraction === '' || whole.length + fraction.length > 40) {
    throw invalid(field, `${wanted}, not ${JSON.stringify(text)}`);
  }
  if (parts[1] === '-') throw invalid(field, 'must not be negative');
  const exponent = Number(parts[4] ?? 0);
  if (Math.abs(exponent) > MAX_EXPONENT) throw invalid(field, `${wanted}, not ${JSON.stringify(text)}`);
  let numerator = BigInt(whole + fraction) * (SUFFIXES.get(parts[5] ?? '') ?? NANO);
  let denominator = 10n ** BigInt(fraction.length);
  if (exponent >= 0) numerator *= 10n ** BigInt(exponent);
  else denominator *= 10n ** BigInt(-exponent);
  return divideUp(numerator, denominator);
}

/** A quantity of CPUs in thousandths of a CPU, rounded up. */
export function parseMilliCpu(text: string | number, field: string): bigint {
  return divideUp(parseQuantity(text, field), 1_000_000n);
}

/** A quantity of bytes, rounded up. */
export function parseBytes(text: string | number, field: string): bigint {
  return divideUp(parseQuantity(text, field), NANO);
}

function divideUp(numerator: bigint, denominator: bigint): bigint {
  return (numerator + denominator - 1n) / denominator;
}
