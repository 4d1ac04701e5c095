import { invalid } from '../errors.ts';

/** The `bandwidth` capability: rates in bits per second, bursts in bits. A direction without a limit is absent. */
export interface Bandwidth {
  ingressRate?: number;
  ingressBurst?: number;
  egressRate?: number;
  egressBurst?: number;
}

/**
 * Burst in bits for a limited direction. Kubernetes has no annotation for it; this is the value that
 * containerd gives, large enough never to be the limit itself.
 */
const burst = 0xffff_ffff;
/** Bounds in bits per second that Kubernetes documents for these annotations: 1k and 1P. */
const minRate = 1e3;
const maxRate = 1e15;

/** The pod's limits from `kubernetes.io/ingress-bandwidth` and `kubernetes.io/egress-bandwidth`. */
export function parseBandwidth(annotations: Readonly<Record<string, string>>): Bandwidth | undefined {
  const ingress = rate(annotations, 'kubernetes.io/ingress-bandwidth');
  const egress = rate(annotations, 'kubernetes.io/egress-bandwidth');
  if (ingress === undefined && egress === undefined) return undefined;
  return {
    ...(ingress !== undefined && { ingressRate: ingress, ingressBurst: burst }),
    ...(egress !== undefined && { egressRate: egress, egressBurst: burst }),
  };
}

function rate(annotations: Readonly<Record<string, string>>, key: string): number | undefined {
  const text = annotations[key];
  if (text === undefined) return undefined;
  const field = `config.annotations["${key}"]`;
  const value = parseQuantity(text);
  if (value === undefined) throw invalid(field, 'is not a quantity such as 10M');
  if (value < minRate || value > maxRate) throw invalid(field, 'must be between 1k and 1P bits per second');
  return value;
}

const multipliers: ReadonlyMap<string, number> = new Map([
  ['n', 1e-9],
  ['u', 1e-6],
  ['m', 1e-3],
  ['', 1],
  ['k', 1e3],
  ['M', 1e6],
  ['G', 1e9],
  ['T', 1e12],
  ['P', 1e15],
  ['E', 1e18],
  ['Ki', 2 ** 10],
  ['Mi', 2 ** 20],
  ['Gi', 2 ** 30],
  ['Ti', 2 ** 40],
  ['Pi', 2 ** 50],
  ['Ei', 2 ** 60],
]);

/** A Kubernetes resource quantity, rounded up to a whole number as its `Value()` is; undefined when it is none. */
function parseQuantity(text: string): number | undefined {
  const match = /^([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,2})|([A-Za-z]{0,2}))$/.exec(text);
  if (match === null) return undefined;
  const [, mantissa, exponent, suffix] = match;
  const scale = exponent === undefined ? multipliers.get(suffix ?? '') : 10 ** Number(exponent);
  return scale === undefined ? undefined : Math.ceil(Number(mantissa) * scale);
}
