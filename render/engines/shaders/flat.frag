#version 330 core
// The surface's own color, unlit, sRGB. With a texture the colors of the corners are linear light that multiplies it,
// and there is nothing where it is cut out; without one they are the color.
struct Material {
    vec3 emissive_factor;
    vec4 base_color_factor;
    float metallic_factor;
    float roughness_factor;
#ifdef HAS_BASE_COLOR_TEX
    sampler2D base_color_texture;
#endif
};
uniform Material material;
uniform vec3 cam_pos;
#ifdef TEXCOORD_0_LOC
in vec2 at;
#endif
#ifdef COLOR_0_LOC
in vec4 tint;
#endif
out vec4 frag_color;

vec3 to_linear(vec3 color)
{
    return mix(color / 12.92, pow((color + 0.055) / 1.055, vec3(2.4)), step(vec3(0.04045), color));
}

vec3 to_srgb(vec3 light)
{
    return mix(12.92 * light, 1.055 * pow(light, vec3(1.0 / 2.4)) - 0.055, step(vec3(0.0031308), light));
}

void main()
{
    vec4 color = material.base_color_factor;
#ifdef HAS_BASE_COLOR_TEX
    color *= texture(material.base_color_texture, at);
    if (color.a < 0.5) {
        discard;
    }
#ifdef COLOR_0_LOC
    color.rgb = to_srgb(to_linear(color.rgb) * tint.rgb);
#endif
#else
#ifdef COLOR_0_LOC
    color.rgb = tint.rgb;
#endif
#endif
    frag_color = vec4(clamp(color.rgb, 0.0, 1.0), 1.0);
}
