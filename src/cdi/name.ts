import { invalid } from '../errors.ts';

/** A device's full name, `vendor/class=device`, in its parts (CDI specification, "Kind" and "CDI Devices"). */
export interface CdiName {
  /** `vendor/class`. */
  kind: string;
  device: string;
}

const MAX_LENGTH = 512;
const KIND = /^[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?\/[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?$/;
const DEVICE = /^[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?$/;

export function isKind(text: string): boolean {
  return text.length <= MAX_LENGTH && KIND.test(text);
}

export function isDeviceName(text: string): boolean {
  return text.length <= MAX_LENGTH && DEVICE.test(text);
}

/** @throws BerthError `invalid` naming `field` */
export function parseCdiName(text: string, field: string): CdiName {
  const at = text.indexOf('=');
  const [kind, device] = [text.slice(0, Math.max(at, 0)), text.slice(at + 1)];
  if (!isKind(kind) || !isDeviceName(device)) {
    throw invalid(field, `must be like vendor.com/class=device; is ${JSON.stringify(text.slice(0, 200))}`);
  }
  return { kind, device };
}

const ANNOTATION_PREFIX = 'cdi.k8s.io/';

/** A device and the field of the request that names it. */
export interface RequestedCdiDevice {
  name: string;
  field: string;
}

/**
 * The devices that a container asks for, each once: in the protocol's field, and in annotations that device
 * plugins of clusters before that field set (`cdi.k8s.io/<anything>`: names separated by commas).
 */
export function requestedCdiDevices(config: {
  cdiDevices: readonly string[];
  annotations: Readonly<Record<string, string>>;
}): RequestedCdiDevice[] {
  const asked = config.cdiDevices.map((name, i) => ({ name, field: `config.CDI_devices[${i}].name` }));
  for (const [key, value] of Object.entries(config.annotations)) {
    if (!key.startsWith(ANNOTATION_PREFIX)) continue;
    const field = `config.annotations[${JSON.stringify(key.slice(0, 200))}]`;
    asked.push(...value.split(',').map((name) => ({ name: name.trim(), field })));
  }
  return asked.filter(({ name }, i) => asked.findIndex((other) => other.name === name) === i);
}
